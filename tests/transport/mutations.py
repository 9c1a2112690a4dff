# SPDX-License-Identifier: BSD-3-Clause
"""Bugs that are planted in the transport, one at a time, and which suite has to see each of them.

    mutations.py SOURCE_ROOT [WORD...]      only those whose description has one of the words

A suite that sees nothing wrong with a planted bug would not see it if somebody made it.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SIM = ["monitor", "net", "nic", "pcap", "sim", "trim"]
HELPERS = {"sim": [*SIM, "scene", "streams"], "verbs": SIM, "verbs_sim": SIM, "recovery": SIM, "pmtu": [*SIM, "flows"],
           "stream": ["puppet"], "crowd": ["puppet"], "landing": ["puppet"], "attack": ["puppet"], "life": ["puppet"], "setup": ["puppet"],
           "script": ["puppet", *(f"script/{n}" for n in ("calls", "checks", "inject", "match", "packet", "requests", "script",
                                                          "settings", "text", "words"))]}
MAINS = {"script": "script/test_script"}  # of the others: test_ and the suite's name
ARGUMENTS = {"script": ["tests/transport/scripts"]}
CFLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-strict-aliasing", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# What is wrong, where, the text, what stands there instead, and the suites of which one at least must fail.
MUTATIONS = [
    # lost, repeated and misplaced bytes
    ("stream: the last byte of an early packet is lost", "receive.c", "\te->len = (uint16_t)p->payload_len;",
     "\te->len = (uint16_t)(p->payload_len > 1 ? p->payload_len - 1 : 1);", ["sim"]),
    ("stream: bytes are placed one too far", "ring.h", "size_t at = tp_ring_index(r, off), first = r->size - at;\n\n\tif (__builtin_expect(len <= first, 1)) {\n\t\tmemcpy(r->data + at, src, len);",
     "size_t at = (off + 1) & (r->size - 1), first = r->size - at;\n\n\tif (__builtin_expect(len <= first, 1)) {\n\t\tmemcpy(r->data + at, src, len);", ["stream", "sim"]),
    ("stream: a duplicate is delivered again", "receive.c", "\tif (__builtin_expect(ahead < 0, 0)) {", "\tif (__builtin_expect(ahead < -1, 0)) {",
     ["stream", "sim"]),
    ("landing: an early packet does not end it", "receive.c", "\tc->lands = false; /* these", "\t/* these", ["landing", "sim"]),
    ("landing: begins while packets are missing", "receive.c", "c->landing.data || c->read_shut || c->rcv_off != c->rcv_read || c->reorder ||", "c->landing.data || c->read_shut || c->rcv_off != c->rcv_read ||", ["landing", "sim"]),
    ("landing: what does not fit is lost", "receive.c", "\tif (n < p->payload_len)\n\t\ttp_ring_put(&c->rcv, p->offset + n", "\tif (0)\n\t\ttp_ring_put(&c->rcv, p->offset + n", ["landing", "sim"]),
    ("landing: what has come is to be read once more", "receive.c", "\tc->rcv_read += n;\n", "", ["landing", "sim"]),
    ("landing: its reader is not told of the end", "receive.c", "c->landing.low && !c->rcv_fin &&", "c->landing.low &&", ["landing"]),
    ("landing: its reader does not make the ring larger", "receive.c", "!c->rcv_fin && !c->limited;", "!c->rcv_fin;", ["landing"]),
    ("landing: goes on when nobody reads any more", "close.c", "\tc->lands = false;\n", "", ["landing"]),
    ("loan: is not settled", "stream.c", "\tif (from < l->to)\n", "\tif (from + 1 < l->from)\n", ["landing", "sim"]),
    ("loan: is settled from its beginning", "stream.c", "l->data + (from - l->from), l->to - from);", "l->data, l->to - from);", ["landing", "sim"]),
    ("loan: is not settled by a close", "close.c", "\ttp_settle(c);\n", "\tc->lent = false;\n", ["landing", "sim"]),
    ("loan: goes on in other memory", "stream.c", "l->to != c->snd_end || l->data + (l->to - l->from) != data)", "l->to != c->snd_end)", ["landing", "sim"]),
    ("loan: goes on elsewhere in the stream", "stream.c", "l->to != c->snd_end || l->data", "l->data", ["landing"]),
    ("loan: a packet's bytes before it are its own", "stream.c", "if (off >= l->from && off < l->to) {", "if (off < l->to) {", ["landing", "sim"]),
    ("loan: a packet's bytes are the ring's from where it begins in it", "stream.c", "\tif (off < l->from && l->from - off < len)\n\t\tlen = l->from - off;\n", "",
     ["landing", "sim"]),
    ("crowd: a ring goes while bytes behind a gap are in it", "receive.c", "c->rcv_off != c->rcv_read || c->reorder || size", "c->rcv_off != c->rcv_read || size",
     ["crowd", "sim"]),
    ("crowd: a ring goes before all of it has been read", "receive.c", "if (!c->rcv.data || c->rcv_off != c->rcv_read ||", "if (!c->rcv.data ||", ["crowd", "sim"]),
    ("crowd: a ring goes before all of it has been acknowledged", "ack.c", "\tif (c->snd_acked != c->snd_end)\n\t\treturn;\n\tif (__b", "\tif (__b", ["crowd", "sim"]),
    ("crowd: bytes are taken without a ring", "receive.c", "\tif (p->payload_len && !has_ring(c))\n\t\treturn true; /* as if it were lost */\n", "", ["crowd", "sim"]),
    ("messages: the last byte of a message is lost", "responder.c",
     "\ttp_sge_scatter(w->sg, (uint32_t)p->msg.offset, p->payload, p->payload_len);\n\tnote_imm",
     "\ttp_sge_scatter(w->sg, (uint32_t)p->msg.offset, p->payload, p->payload_len - p->msg.last * (p->payload_len > 0));\n\tnote_imm",
     ["verbs", "verbs_sim"]),
    # memory
    ("region: a stale key is honoured", "region.c", "if (!mr || mr->rkey != rkey || mr->pd", "if (!mr || mr->pd", ["verbs"]),
    ("region: another domain's key is honoured", "region.c", "|| mr->pd != qp->pd ||", "||", ["verbs"]),
    ("region: rights are not looked at", "region.c", "|| (mr->access & access) != access)\n\t\treturn NULL;", ")\n\t\treturn NULL;", ["verbs"]),
    ("region: the bound is missed by one", "region.c", "return len <= mr->len && offset <= mr->len - len ? mr : NULL;",
     "return len <= mr->len && offset <= mr->len - len + 1 ? mr : NULL;", ["verbs"]),
    ("region: the bound wraps", "region.c", "return len <= mr->len && offset <= mr->len - len ? mr : NULL;",
     "return offset + len <= mr->len ? mr : NULL;", ["verbs"]),
    ("region: requests outlive their region", "region.c", "\t\tif (uses(qp, mr))", "\t\tif (0 && uses(qp, mr))", ["verbs", "verbs_sim"]),
    ("messages: one byte more than the receive has", "responder.c",
     "\tif (p->payload_len > w->len || p->msg.offset > w->len - p->payload_len) {\n\t\tif (!early)",
     "\tif (p->payload_len > w->len + 1 || p->msg.offset > w->len + 1 - p->payload_len) {\n\t\tif (!early)", ["verbs"]),
    # memory that packets are sent from without a copy
    ("hold: a request completes while its bytes are being sent", "requester.c", " && tp_hold_is_over(qp, w);", ";", ["verbs_sim"]),
    ("hold: a failed request completes while its bytes are being sent", "qp.c", "\t\tif (!tp_hold_is_over(qp, swqe_at(qp, i)))\n\t\t\treturn;", "", ["verbs_sim"]),
    ("hold: a region goes while it is being sent from", "region.c", "if (mr->held || mr->uses)", "if (mr->uses)", ["verbs_sim"]),
    ("hold: a packet that is sent again is not held", "hold.c", "\tif (parts->request)\n", "\tif (parts->request && !parts->request->ticket)\n", ["verbs_sim"]),
    ("hold: nobody is told of a release", "hold.c", "\t\ttp_qp_released(container_of", "\t\t(void)(container_of", ["verbs_sim"]),
    ("parts: the trailer leaves out the last piece", "output.c", "crc = sd_crc32c(0, buf, p->head);\n\tfor (unsigned i = 0; i < p->n; i++)",
     "crc = sd_crc32c(0, buf, p->head);\n\tfor (unsigned i = 0; i + 1 < p->n; i++)", ["verbs_sim", "sim"]),
    # windows and credits
    ("stream: bytes beyond the window are sent", "output.c", "size_t len = unsent < room ? unsent : room,", "size_t len = unsent,", ["stream", "sim"]),
    ("stream: bytes beyond the window are taken", "receive.c", "p->offset > c->rcv_limit || p->payload_len > c->rcv_limit - p->offset)",
     "p->offset > c->rcv_limit || p->payload_len > 1 + c->rcv_limit - p->offset)", ["attack", "stream", "sim"]),
    ("messages: a SEND does not wait for a credit", "requester.c", "(int32_t)(w->number - qp->peer_credit) >= 0)", "(int32_t)(w->number - qp->peer_credit) > 0)",
     ["verbs", "verbs_sim"]),
    ("messages: more READs than the peer takes", "requester.c", "return !is_read(w) || outstanding(qp) < qp->max_reads;",
     "return !is_read(w) || outstanding(qp) <= qp->max_reads;", ["verbs", "verbs_sim"]),
    ("more packets than the peer remembers", "output.c", "return flying <= c->sent_mask && flying < c->snd_window;",
     "return flying <= c->sent_mask && flying <= c->snd_window;", ["sim", "stream"]),
    # completions
    ("messages: complete before it has arrived", "requester.c", "return w->over && qp->conn->snd_una >= w->end_psn &&",
     "return w->over && qp->conn->snd_una + 1 >= w->end_psn &&", ["verbs", "verbs_sim"]),
    ("messages: a completion overtakes another", "cq.c", "\tcq->ring[cq->tail++ & cq->mask] = *wc;",
     "\tcq->ring[cq->tail & cq->mask] = *wc;\n\tif (cq->tail != cq->head && cq->tail % 7 == 0) {\n\t\tstruct tp_wc was = cq->ring[(cq->tail - 1) & cq->mask];\n\n"
     "\t\tcq->ring[(cq->tail - 1) & cq->mask] = *wc;\n\t\tcq->ring[cq->tail & cq->mask] = was;\n\t}\n\tcq->tail++;", ["verbs", "verbs_sim"]),
    ("messages: what is posted is not flushed", "qp.c", "\t\tstatus = TP_WC_FLUSHED;\n\t}", "\t\tstatus = TP_WC_FLUSHED;\n\t\tif (qp->sq.tail - qp->sq.head == 1)\n\t\t\tbreak;\n\t}",
     ["verbs", "verbs_sim"]),
    ("messages: a fence does not hold", "requester.c", "\tif (w->flags & TP_FENCE && outstanding(qp))", "\tif (0)", ["verbs"]),
    # leaks
    ("a reorder block is not given back", "receive.c", "\ttp_pool_reorder_put(c->tp, r);\n\tc->reorder = NULL;", "\tc->reorder = NULL;", ["sim", "stream"]),
    ("messages: a place in the completion queue is lost", "cq.c", "\tcq->posted--;\n\tcq->ring", "\tcq->posted -= cq->tail % 16 != 0;\n\tcq->ring", ["verbs", "verbs_sim"]),
    # standing still
    ("a lost packet is never sent again", "output.c", "if (__builtin_expect(c->lost && may_repeat(c, &psn), 0))\n\t\t\treturn", "if (0)\n\t\t\treturn", ["sim", "recovery"]),
    ("probe: how long answers take is not looked at", "recovery.c", "\tif (wait < 2 * c->rack_rtt)\n\t\twait = 2 * c->rack_rtt;\n", "", ["script"]),
    ("probe: comes no sooner when answers are prompt", "recovery.c", ": last - last / 8;", ": last;", ["script"]),
    ("probe: those that were needed change nothing", "recovery.c", "c->answered_probes ? last + last / 2 :", "0 ? 0 :", ["script"]),
    ("probe: waits too long", "recovery.c", "\tif (wait > TP_MAX_PROBE)\n\t\twait = TP_MAX_PROBE;\n", "", ["script"]),
    ("probe: comes too soon", "recovery.c", "\tif (wait < TP_MIN_PROBE)\n\t\twait = TP_MIN_PROBE;\n", "", ["script", "sim"]),
    ("a shut window is never asked about", "recovery.c", "\telse if (shut_out(c) || c->unconfirmed)", "\telse if (c->unconfirmed)", ["sim", "stream"]),
    ("messages: nobody says that there are credits", "responder.c", "\t\ttp_ack_soon(c); /* the peer may be waiting for it */", "\t\t;", ["verbs", "verbs_sim"]),
    ("messages: answers are never given", "requester.c", "\treturn qp->in_send != qp->in_next;", "\treturn false;", ["verbs", "verbs_sim"]),
    # what the page says, which packet scripts look at
    ("page: bytes are written again", "receive.c", "\t\tc->tp->stats.rx_duplicate++;\n\t\ttp_ack_soon(c);",
     "\t\tc->tp->stats.rx_duplicate++;\n\t\tplace(c, p);\n\t\ttp_ack_soon(c);", ["script"]),
    ("page: early packets may overlap", "receive.c", "if (e->off != (uint32_t)c->rcv_off || c->rcv_fin)", "if (c->rcv_fin)", ["script"]),
    ("page: SACK bits for what was not sent", "ack.c", "if (tp_wire_get_sack(p, k) & ~mask)", "if (0)", ["script"]),
    ("page: the ninth packet is acknowledged", "conn.h", "#define TP_ACK_EVERY\t 8", "#define TP_ACK_EVERY\t 9", ["script"]),
    ("page: an echo without the time since", "output.c", "c->ts_recent ? c->ts_recent + (uint32_t)((now - c->ts_recent_at) >> 7) : 0,", "c->ts_recent,",
     ["script"]),
    ("page: DATA takes the place of SACK words", "output.c", "if (__builtin_expect(c->ack_now && (c->reorder || c->rcv_piece), 0))", "if (0)", ["script"]),
    ("page: INIT is repeated too rarely", "setup.c", "#define LAST_RETRY\t   (50 * SD_MS)", "#define LAST_RETRY\t   (60 * SD_MS)", ["script"]),
    ("page: a cookie is anybody's", "setup.c", "be64_put(in + 36, i->src_cid);", "be64_put(in + 36, 0);", ["script"]),
    ("page: half open for too long", "setup.c", "t->cfg.connect_timeout_ns + t->cfg.dead_timeout_ns / 4;",
     "t->cfg.connect_timeout_ns + t->cfg.dead_timeout_ns / 3;", ["script"]),
    ("page: a restart is asked about too often", "peer.c", "#define RESTART_CHECK SD_S", "#define RESTART_CHECK (SD_S / 4)", ["script"]),
    ("page: FINISHED for every ACK", "control.c", "why == WIRE_RESET_FINISHED ? asks_nothing(pkt) :", "why == WIRE_RESET_FINISHED ? false :", ["script"]),
    ("page: a word for an eighth of the ring", "receive.c", "if (freed < c->rcv.size / 4 ||", "if (freed < c->rcv.size / 8 ||", ["script"]),
    ("page: a cut packet does not wait", "output.c", "return room && c->snd_una == c->snd_nxt;", "return room;", ["script"]),
    ("page: no BYE", "output.c", "\tif (c->state == CONN_CLOSING)\n\t\tflags", "\tif (0)\n\t\tflags", ["script"]),
    ("page: a second message within a WRITE", "responder.c", "qp->within = s->last ? WIRE_OP_NONE : WIRE_OP_WRITE;", ";", ["script"]),
    ("page: answers do not take turns", "requester.c", "qp->answers_turn = !qp->answers_turn;", "qp->answers_turn = false;", ["script"]),
    ("page: RESET names another PSN", "control.c", "put_reset(t, e, c->cid, why, c->nak ? (uint32_t)c->rcv_nxt : 0);",
     "put_reset(t, e, c->cid, why, c->nak ? (uint32_t)c->rcv_nxt + 1 : 0);", ["script"]),
    # packets in pieces, and how large packets are
    ("pieces: the first one ends its packet", "receive.c", "\tc->rcv_nxt += whole;", "\tc->rcv_nxt++;", ["script"]),
    ("pieces: the first one ends its fragment", "responder.c", "\tc->rcv_nxt += !s->more;", "\tc->rcv_nxt++;", ["script"]),
    ("pieces: what has come is not skipped", "receive.c", "\trest.payload += known;\n\trest.payload_len -= known;\n\trest.offset += known;\n", "", ["script"]),
    ("pieces: what has come is written again", "receive.c", "\trest.payload += known;\n", "", ["script"]),
    ("pieces: of a WRITE, the rest goes where the whole would", "receive.c", "\trest.msg.remote += known;\n", "", ["script"]),
    ("pieces: a gap is not seen", "receive.c", "\tif (from > c->rcv_piece || (p->more", "\tif (from > c->rcv_piece)\n\t\tknown = 0;\n\tif ((p->more", ["script"]),
    ("pieces: an end below what has come", "receive.c", "\tif (known && known >= p->payload_len)\n\t\treturn violation(c);", "\tif (known && known >= p->payload_len)\n\t\treturn true;",
     ["script"]),
    ("pieces: a later packet's is kept", "receive.c", "\t\treturn p->piece ? true : receive(c, p, ahead, events);", "\t\treturn receive(c, p, ahead, events);", ["script"]),
    ("pieces: nobody is told how much has come", "output.c", "\tif (c->rcv_piece) {\n", "\tif (0) {\n", ["script"]),
    ("pieces: every ACK brings the next one", "pmtu.c", " || bytes <= c->piece || bytes >= s->len)", " || bytes >= s->len)", ["script"]),
    ("pieces: all of them end what the packet ends", "output.c", "(!more && s->flags & SENT_FIN ?", "(s->flags & SENT_FIN ?", ["script"]),
    ("size: a black hole is never seen", "pmtu.c", "\tif (s->sends < BLACK_HOLE ||", "\tif (s->sends ||", ["script"]),
    ("size: silence is taken for a black hole", "pmtu.c", " || c->last_heard <= s->time)\n\t\treturn;\n\tif (others", ")\n\t\treturn;\n\tif (others", ["script"]),
    ("size: a lost probe is taken for congestion", "recovery.c", "\tif (s->flags & SENT_PROBE)\n\t\treturn;", "\tif (0)\n\t\treturn;", ["script"]),
    ("size: larger before the probe is acknowledged", "pmtu.c", "\t\tif (c->snd_una <= p->probe_psn)\n\t\t\treturn;\n", "", ["script"]),
    ("size: chance is taken for a black hole", "pmtu.c", "\tif (others_arrive(c, s))\n\t\treturn;\n", "", ["pmtu"]),
    ("stream: the send ring is rewound with bytes in it", "stream.c", "\tif (!queued)\n\t\ttp_ring_rewind", "\tif (queued < 100)\n\t\ttp_ring_rewind", ["sim", "stream"]),
    ("stream: the receive ring is rewound with bytes in it", "receive.c", "if (c->rcv_read == c->rcv_off && !c->reorder)", "if (!c->reorder)", ["sim", "stream"]),
    ("size: everybody probes", "pmtu.c", "if (c->tp->now >= p->probe_at && ", "if (", ["script"]),
    ("size: one lost probe is enough", "pmtu.c", "#define TRIES\t     3", "#define TRIES\t     1", ["script"]),
    ("size: the peer is not asked beside a timeout", "recovery.c", " || (c->probes > 1 && tp_pmtu_doubts(c));", ";", ["script"]),
]

class Bench:
    def __init__(self, root, directory):
        self.root, self.dir = root, Path(directory)
        self.objects = {}
        for folder in ("base", "transport"):
            for c in sorted((root / folder).glob("*.c")):
                self.objects[f"{folder}/{c.name}"] = self.compile(c, f"{folder}-{c.stem}")
        for name in {h for hs in HELPERS.values() for h in hs} | {MAINS.get(t, f"test_{t}") for t in HELPERS}:
            self.objects[f"tests/{name}"] = self.compile(root / "tests/transport" / f"{name}.c",
                                                         f"tests-{name.replace('/', '-')}")
        self.wait()

    def compile(self, c, name, include=None):
        out = self.dir / f"{name}.o"
        dirs = [f"-I{d}" for d in (([include] if include else []) + [self.root, self.root / "tests/transport"])]
        self.running = getattr(self, "running", [])
        self.running.append((c, subprocess.Popen(["cc", *CFLAGS, *dirs, "-c", str(c), "-o", str(out)])))
        if len(self.running) >= (os.cpu_count() or 1):
            self.wait()
        return out

    def wait(self):
        for c, p in self.running:
            if p.wait():
                sys.exit(f"{c} does not compile")
        self.running = []

    def link(self, suite, objects):
        binary = self.dir / f"test_{suite}"
        mine = [o for n, o in objects.items() if not n.startswith("tests/")]
        mine += [objects[f"tests/{n}"] for n in [MAINS.get(suite, f"test_{suite}"), *HELPERS[suite]]]
        subprocess.run(["cc", *CFLAGS, *map(str, mine), "-o", str(binary), "-lcmocka", "-lm", "-lpthread"], check=True)
        return binary

    def fails(self, suite, objects, seconds):
        """None: it passes."""
        binary = self.link(suite, objects)
        try:
            r = subprocess.run([str(binary), *ARGUMENTS.get(suite, [])], cwd=self.root, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return "it does not end"
        return None if r.returncode == 0 else f"status {r.returncode}"

    def planted(self, file, old, new):
        """The objects with that change: of one file, or of all that include it."""
        text = (self.root / "transport" / file).read_text()
        if text.count(old) != 1:
            sys.exit(f"{file} has {text.count(old)} times instead of once: {old}")
        tree = self.dir / "planted"
        (tree / "transport").mkdir(parents=True, exist_ok=True)
        for f in (tree / "transport").iterdir():
            f.unlink()
        (tree / "transport" / file).write_text(text.replace(old, new))
        objects = dict(self.objects)
        if file.endswith(".c"):
            objects[f"transport/{file}"] = self.compile(tree / "transport" / file, "planted")
        else:
            for c in sorted((self.root / "transport").glob("*.c")):
                objects[f"transport/{c.name}"] = self.compile(c, f"planted-{c.stem}", tree)
        self.wait()
        return objects


def main():
    root, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    wanted = [m for m in MUTATIONS if not words or any(w in m[0] for w in words)]
    unseen = 0
    with tempfile.TemporaryDirectory(prefix="sd-mutations-") as directory:
        bench = Bench(root, directory)
        for suite in sorted({s for m in wanted for s in m[4]}):
            why = bench.fails(suite, bench.objects, 600)
            if why:
                sys.exit(f"{suite} fails without any bug: {why}")
        print(f"1..{len(wanted)}", flush=True)
        for i, (what, file, old, new, suites) in enumerate(wanted, 1):
            objects = bench.planted(file, old, new)
            seen = next((f"{s}: {why}" for s in suites if (why := bench.fails(s, objects, 300))), None)
            unseen += not seen
            print(f"{'ok' if seen else 'not ok'} {i} - {what} ({seen or 'nobody has seen it: ' + ', '.join(suites)})", flush=True)
    sys.exit(unseen != 0)


if __name__ == "__main__":
    main()
