-- SPDX-License-Identifier: BSD-3-Clause
-- Wireshark's dissector of the SAN transport protocol. docs/protocol.md is what it knows, by the same names; docs/commands.md says how to
-- load it. A packet that a receiver would drop has an expert error that says why.

local sandirect = Proto("sandirect", "Sandirect")

local UDP_PORT, VERSION = 7747, 1
local BASE_LENGTH, TRAILER_LENGTH = 32, 4
local MODULUS = 2 ^ 32

local DATA, ACK, INIT, INIT_ACK, INIT_NAK, COOKIE, RESET, FIND, FIND_REPLY = 1, 2, 3, 4, 5, 6, 7, 8, 9
local TYPES = {"DATA", "ACK", "INIT", "INIT_ACK", "INIT_NAK", "COOKIE", "RESET", "FIND", "FIND_REPLY"}
local NONE, STREAM, SEND, WRITE, WRITE_IMM, READ_REQ, READ_RESP, SWAP, ADD = 0, 1, 2, 3, 4, 5, 6, 7, 8
local OPCODES = {[0] = "none", "STREAM", "SEND", "WRITE", "WRITE_IMM", "READ_REQ", "READ_RESP", "SWAP", "ADD"}
local X_ACK, X_PIECE, X_CRITICAL = 2, 0x81, 0x80
local EXTENSIONS = {"STREAM", "ACK", "SEND", "WRITE", "READ_REQ", "READ_RESP", "ATOMIC", [X_PIECE] = "PIECE"}
local CODES = {[0] = "OK", "NO_LISTENER", "REFUSED", "VERSION", "BUSY"}
local REASONS = {[0] = "UNKNOWN", "ABORT", "CLOSED", "PROTOCOL", "TIMEOUT", "FINISHED", "ACCESS", "INVALID", "FAILED"}
local FLAGS = {{1, "ACKREQ"}, {2, "RETX"}, {4, "FIN"}, {8, "SE"}, {16, "LIMITED"}, {32, "BYE"}, {64, "LATE"}, {128, "READY"}}
local RETX, FIN, READY, LAST, MORE, FEATURE_CRC, ASTRAY = 2, 4, 128, 1, 1, 1, 1
local PIECE_LENGTH, MOST = 8, 65535 -- MOST: bytes of a packet that comes in pieces

-- The extension that an opcode has, and its length in bytes; SEND may also have an immediate.
local OWN = {[STREAM] = {1, 12}, [SEND] = {3, 12}, [WRITE] = {4, 20}, [WRITE_IMM] = {4, 28}, [READ_REQ] = {5, 28},
	[READ_RESP] = {6, 12}, [SWAP] = {7, 40}, [ADD] = {7, 40}}
local SEND_IMMEDIATE_LENGTH = 16
local WITHOUT_PAYLOAD = {[READ_REQ] = true, [SWAP] = true, [ADD] = true}

-- --- fields ---

local fields = {}

local function field(name, kind, title, ...)
	fields[name] = ProtoField[kind]("sandirect." .. name, title, ...)
end

field("version", "uint8", "Version", base.DEC, nil, 0xf0)
field("type", "uint8", "Type", base.DEC, TYPES, 0x0f)
field("header_length", "uint8", "Header length (units of 4 bytes)")
field("flags", "uint8", "Flags", base.HEX)
for _, flag in ipairs(FLAGS) do
	field("flags." .. flag[2]:lower(), "bool", flag[2], 8, nil, flag[1])
end
field("opcode", "uint8", "Opcode", base.DEC, OPCODES)
field("credits", "uint16", "Message credits")
field("ce_count", "uint16", "CE count")
field("dst_cid", "uint64", "Connection id of the receiver", base.HEX)
field("src_cid", "uint64", "Connection id of the sender", base.HEX)
field("psn", "uint32", "PSN")
field("psn.relative", "uint32", "PSN, relative")
field("ack", "uint32", "Ack")
field("ack.relative", "uint32", "Ack, relative")
field("timestamp", "uint32", "Timestamp (128 ns)")
field("echo", "uint32", "Echo (128 ns)")
field("ext", "none", "Extension")
field("ext.type", "uint8", "Type", base.DEC, EXTENSIONS)
field("ext.length", "uint8", "Length (units of 4 bytes)")
field("ext.flags", "uint16", "Flags", base.HEX)
field("ext.flags.last", "bool", "LAST", 16, nil, LAST)
field("ext.flags.more", "bool", "MORE", 16, nil, MORE)
field("ext.value", "bytes", "Value")
field("offset", "uint64", "Stream offset", base.DEC)
field("backlog", "uint8", "Backlog (256ths)")
field("ack_flags", "uint8", "Flags", base.HEX)
field("ack_flags.astray", "bool", "ASTRAY", 8, nil, ASTRAY)
field("window", "uint64", "Window", base.DEC)
field("sack", "uint64", "SACK word", base.HEX)
field("sack.range", "string", "Received")
field("ssn", "uint32", "SSN")
field("rsn", "uint32", "RSN")
field("message_offset", "uint32", "Offset in the message")
field("immediate", "uint32", "Immediate", base.HEX)
field("rkey", "uint64", "Key", base.HEX)
field("region_offset", "uint64", "Offset in the region", base.DEC)
field("wanted", "uint32", "Bytes wanted")
field("operand", "uint64", "Value to swap in or add", base.HEX)
field("compare", "uint64", "Value to compare with", base.HEX)
field("piece_offset", "uint32", "Offset in the packet that comes in pieces")
field("payload", "bytes", "Payload")
field("trailer", "uint32", "CRC32C", base.HEX)
field("trailer.status", "uint8", "CRC32C status", base.DEC, {[0] = "wrong", "right"})
field("attempt", "uint8", "Sent before")
field("src_port", "uint16", "Source port")
field("dst_port", "uint16", "Destination port")
field("nonce", "uint64", "Nonce", base.HEX)
field("epoch", "uint64", "Boot epoch", base.HEX)
field("isn", "uint32", "Initial PSN")
field("max_ack_delay", "uint32", "Maximum acknowledgement delay (us)")
field("largest_packet", "uint16", "Largest packet")
field("features", "uint16", "Features", base.HEX)
field("features.crc32c", "bool", "CRC32C trailer on DATA and ACK", 16, nil, FEATURE_CRC)
field("features.messages", "bool", "Messages", 16, nil, 2)
field("packets", "uint16", "Packets remembered")
field("messages", "uint16", "READ and atomic requests taken")
field("token", "bytes", "Reset token")
field("cookie", "bytes", "Cookie")
field("code", "uint8", "Code", base.DEC, CODES)
field("lowest_version", "uint8", "Lowest version spoken")
field("highest_version", "uint8", "Highest version spoken")
field("reason", "uint8", "Reason", base.DEC, REASONS)
field("port", "uint16", "Port")
field("family", "uint8", "Address family")
field("address.ipv4", "ipv4", "Address")
field("address.ipv6", "ipv6", "Address")
field("beyond", "bytes", "Fields of a later revision")
field("connection", "uint32", "Connection")
field("request_in", "framenum", "Answer to", base.NONE, frametype.REQUEST)
field("response_in", "framenum", "Answered in", base.NONE, frametype.RESPONSE)
field("response_time", "relative_time", "Time since the request")
field("repeats", "framenum", "First transmission in", base.NONE, frametype.RETRANS_PREV)
field("acknowledges", "framenum", "Acknowledges", base.NONE, frametype.ACK)

for _, f in pairs(fields) do
	table.insert(sandirect.fields, f)
end

local experts = {
	malformed = {"Malformed, a receiver drops it", expert.group.MALFORMED, expert.severity.ERROR},
	bad_trailer = {"Wrong trailer, a receiver drops it", expert.group.CHECKSUM, expert.severity.ERROR},
	cut = {"The capture has only a part of this packet", expert.group.UNDECODED, expert.severity.NOTE},
	retransmission = {"Retransmission", expert.group.SEQUENCE, expert.severity.NOTE},
	duplicate = {"Duplicate of a packet that was not sent again", expert.group.SEQUENCE, expert.severity.NOTE},
	out_of_order = {"Out of order", expert.group.SEQUENCE, expert.severity.NOTE},
	refused = {"The connection was refused", expert.group.RESPONSE_CODE, expert.severity.NOTE},
	reset = {"The connection was reset", expert.group.SEQUENCE, expert.severity.WARN},
}
for name, e in pairs(experts) do
	experts[name] = ProtoExpert.new("sandirect." .. name .. ".expert", e[1], e[2], e[3])
end
sandirect.experts = experts

sandirect.prefs.trailer = Pref.enum("CRC32C trailer of DATA and ACK", 0,
	"Whether they have one, if the capture does not have the connection's INIT_ACK",
	{{1, "As it looks", 0}, {2, "Always", 1}, {3, "Never", 2}}, false)

-- --- layouts: {name, bytes}; no name: sent as 0; a third one: what it is here, if the field is not the only one of its name ---

local BASE = {{"flags", 1}, {"opcode", 1}, {"header_length", 1}, {"credits", 2}, {"ce_count", 2}, {"dst_cid", 8}, {"psn", 4}, {"ack", 4},
	{"timestamp", 4}, {"echo", 4}}
local SETUP = {{nil, 1}, {"attempt", 1}, {"header_length", 1}, {"src_port", 2}, {"dst_port", 2}, {"dst_cid", 8}, {"src_cid", 8},
	{"nonce", 8}, {"epoch", 8}, {"window", 8}, {"isn", 4}, {"max_ack_delay", 4}, {"largest_packet", 2}, {"features", 2},
	{"packets", 2}, {"messages", 2}, {"timestamp", 4}, {"echo", 4}, {"token", 16}, {"cookie", 16}}
local QUESTION = {{nil, 1}, {"code", 1}, {"header_length", 1}, {"port", 2}, {"family", 1}, {nil, 1}, {"nonce", 8}}
local LAYOUTS = {
	[DATA] = BASE, [ACK] = BASE, [INIT] = SETUP, [INIT_ACK] = SETUP, [FIND] = QUESTION, [FIND_REPLY] = QUESTION,
	[INIT_NAK] = {{nil, 1}, {"code", 1}, {"header_length", 1}, {"lowest_version", 1}, {"highest_version", 1}, {nil, 2}, {"dst_cid", 8},
		{"nonce", 8}},
	[COOKIE] = {{nil, 2}, {"header_length", 1}, {nil, 4}, {"dst_cid", 8}, {"nonce", 8}, {"cookie", 16}},
	[RESET] = {{nil, 1}, {"reason", 1}, {"header_length", 1}, {"psn", 4}, {"src_cid", 8}, {"token", 16}},
}
local LEAST = {[INIT] = 104, [INIT_ACK] = 104, [INIT_NAK] = 32, [COOKIE] = 40, [RESET] = 32, [FIND] = 32, [FIND_REPLY] = 32}
local EXTENSION_LAYOUTS = {
	{{nil, 2}, {"offset", 8}},
	{{"backlog", 1}, {"ack_flags", 1}, {"window", 8}},
	{{"ext.flags", 2}, {"ssn", 4}, {"message_offset", 4}, {"immediate", 4}},
	{{"ext.flags", 2}, {"rkey", 8}, {"region_offset", 8}, {"ssn", 4}, {"immediate", 4}},
	{{"ext.flags", 2}, {"rsn", 4}, {"rkey", 8}, {"region_offset", 8}, {"wanted", 4}},
	{{"ext.flags", 2}, {"rsn", 4}, {"message_offset", 4}},
	{{"ext.flags", 2}, {"rsn", 4}, {"rkey", 8}, {"region_offset", 8}, {"operand", 8}, {"compare", 8}},
	[X_PIECE] = {{"ext.flags", 2, "piece_flags"}, {"piece_offset", 4}},
}
local BITS = {flags = {}, features = {"features.crc32c", "features.messages"}, ["ext.flags"] = {"ext.flags.last"},
	piece_flags = {"ext.flags.more"}, ack_flags = {"ack_flags.astray"}}
for _, flag in ipairs(FLAGS) do
	table.insert(BITS.flags, "flags." .. flag[2]:lower())
end

-- --- CRC32C, eight bytes at a time: crc_tables[k] is for a byte that k others follow ---

local crc_tables = {[0] = {}}
for n = 0, 255 do
	local crc = n
	for _ = 1, 8 do
		local odd = bit.band(crc, 1) == 1
		crc = bit.rshift(crc, 1)
		crc = odd and bit.bxor(crc, 0x82f63b78) or crc
	end
	crc_tables[0][n] = crc
end
for k = 1, 7 do
	crc_tables[k] = {}
	for n = 0, 255 do
		local crc = crc_tables[k - 1][n]
		crc_tables[k][n] = bit.bxor(bit.rshift(crc, 8), crc_tables[0][bit.band(crc, 255)])
	end
end

local function crc32c(bytes)
	local crc, band, bxor, rshift = -1, bit.band, bit.bxor, bit.rshift
	local t0, t1, t2, t3, t4, t5, t6, t7 = crc_tables[0], crc_tables[1], crc_tables[2], crc_tables[3], crc_tables[4], crc_tables[5],
		crc_tables[6], crc_tables[7]
	local eights = #bytes - #bytes % 8
	for i = 1, eights, 8 do
		local a, b, c, d, e, f, g, h = bytes:byte(i, i + 7)
		local x = bxor(crc, a + b * 0x100 + c * 0x10000 + d * 0x1000000)
		crc = bxor(t7[band(x, 255)], t6[band(rshift(x, 8), 255)], t5[band(rshift(x, 16), 255)], t4[rshift(x, 24)], t3[e], t2[f], t1[g],
			t0[h])
	end
	for i = eights + 1, #bytes do
		crc = bxor(rshift(crc, 8), t0[band(bxor(crc, bytes:byte(i)), 255)])
	end
	return bit.bnot(crc) % MODULUS
end

local function trailer_is_right(tvb)
	local len = tvb:len()
	return len > TRAILER_LENGTH and crc32c(tvb:raw(0, len - TRAILER_LENGTH)) == tvb(len - TRAILER_LENGTH, TRAILER_LENGTH):uint()
end

-- --- what the capture has told so far ---

-- memos: what was found out about a packet when it was first seen. ways: of the packets that go to a connection id, by that id.
-- inits, finds: memos by nonce.
local memos, ways, inits, finds, connections

function sandirect.init()
	memos, ways, inits, finds, connections = {}, {}, {}, {}, 0
end

local function way_to(cid, number)
	local way = ways[cid]
	if not way then
		if not number then
			connections = connections + 1
		end
		way = {number = number or connections - 1, seen = {}, requests = {}}
		ways[cid] = way
	end
	return way
end

local function distance(from, to)
	return (to - from) % MODULUS
end

local function answers(memo, request)
	if request then
		memo.request = request
		request.response = request.response or memo.frame
	end
end

local function learn_init(p, memo)
	local known = inits[p.nonce]
	if known then
		memo.repeats, memo.connection = known.frame, known.connection
		return
	end
	memo.connection, connections = connections, connections + 1
	memo.isn, memo.cid = p.isn, p.src_cid
	inits[p.nonce] = memo
end

local function learn_init_ack(p, memo)
	local init = inits[p.nonce]
	local there = way_to(p.src_cid, init and init.connection)
	local back = way_to(p.dst_cid, there.number)
	local crc = bit.band(p.features, FEATURE_CRC) ~= 0
	there.back, back.back, there.crc, back.crc = back, there, crc, crc
	there.isn, back.isn = there.isn or init and init.isn, p.isn
	there.ports = string.format("%d → %d", p.dst_port, p.src_port)
	back.ports = string.format("%d → %d", p.src_port, p.dst_port)
	memo.connection = there.number
	answers(memo, init)
end

local function learn_data(p, memo, way)
	local first, retx = way.seen[p.psn], bit.band(p.flags, RETX) ~= 0
	if first then
		memo.repeats = first
	end
	if retx then
		memo.verdict = "retransmission"
	elseif first then
		memo.verdict = "duplicate"
	elseif way.high and distance(p.psn, way.high) < MODULUS / 2 then
		memo.verdict = "out_of_order"
	end
	way.seen[p.psn] = first or memo.frame
	if not way.high or distance(way.high, p.psn) < MODULUS / 2 then
		way.high = p.psn
	end
	if WITHOUT_PAYLOAD[p.opcode] then
		way.requests[p.rsn] = way.requests[p.rsn] or memo
	elseif p.opcode == READ_RESP and way.back then
		answers(memo, way.back.requests[p.rsn])
	end
end

local function learn_base(p, memo)
	local way = way_to(p.dst_cid)
	local back = way.back
	way.isn = way.isn or p.psn
	way.crc = way.crc or p.trailer_right
	memo.connection, memo.isn, memo.ports = way.number, way.isn, way.ports
	if back then
		memo.back_isn = back.isn
		if back.acked ~= p.ack then
			back.acked = p.ack
			memo.acknowledges = back.seen[distance(1, p.ack)]
		end
	end
	if p.type == DATA then
		learn_data(p, memo, way)
	end
	way.last = memo
end

-- Of a packet that is in order itself.
local function learn(p, memo)
	if p.type == DATA or p.type == ACK then
		learn_base(p, memo)
	elseif p.type == INIT then
		learn_init(p, memo)
	elseif p.type == INIT_ACK then
		learn_init_ack(p, memo)
	elseif p.type == RESET then
		local way = ways[p.src_cid]
		memo.connection = way and way.number
		answers(memo, way and way.last)
	elseif p.type == FIND then
		finds[p.nonce] = memo
	elseif p.type == FIND_REPLY then
		answers(memo, finds[p.nonce])
	else
		answers(memo, inits[p.nonce])
		memo.connection = memo.request and memo.request.connection
	end
end

-- --- taking apart ---

-- Ends the dissection: the packet is malformed, or (without a reason) the capture has no more of it.
local function drop(why)
	error({why = why}, 0)
end

local function need(condition, otherwise)
	if not condition then
		drop(otherwise)
	end
end

-- The fields of layout that lie before limit, from at on, into p and the tree. Returns what follows them.
local function add_fields(p, tree, layout, at, limit)
	for _, entry in ipairs(layout) do
		local name, n, key = entry[1], entry[2], entry[3] or entry[1]
		if at + n > limit then
			break
		end
		if at + n > p.tvb:len() then
			drop()
		end
		if name then
			local range = p.tvb(at, n)
			local item = tree:add(fields[name], range)
			for _, b in ipairs(BITS[key] or {}) do
				item:add(fields[b], range)
			end
			p[key] = n <= 4 and range:uint() or range:bytes():tohex()
		end
		at = at + n
	end
	return at
end

-- "5-7, 9", relative to origin, of the SACK words in the range.
local function sack_ranges(p, range, origin)
	local out, from = {}, nil
	local words = range:len() / 8
	for i = 0, 64 * words do
		local half = 2 * math.floor(i / 64) + (i % 64 < 32 and 1 or 0)
		local set = i < 64 * words and bit.band(bit.rshift(range(4 * half, 4):uint(), i % 32), 1) == 1
		if set and not from then
			from = i
		elseif not set and from then
			local first, last = distance(origin, p.ack + 1 + from), distance(origin, p.ack + i)
			table.insert(out, string.format(first == last and "%.0f" or "%.0f-%.0f", first, last))
			from = nil
		end
	end
	return table.concat(out, ", ")
end

local function add_sack(p, tree, at, limit)
	local range = p.tvb(at, limit - at)
	for i = at, limit - 8, 8 do
		tree:add(fields.sack, p.tvb(i, 8))
	end
	p.sack_range = range
	tree:add(fields["sack.range"], range, sack_ranges(p, range, 0)):set_generated()
end

local function add_extension(p, at, length, own)
	local kind, limit = p.tvb(at, 1):uint(), at + length
	local layout, name = EXTENSION_LAYOUTS[kind], EXTENSIONS[kind] or "unknown"
	local tree = p.tree:add(fields.ext, p.tvb(at, length))
	tree:set_text("Extension: " .. name)
	tree:add(fields["ext.type"], p.tvb(at, 1))
	tree:add(fields["ext.length"], p.tvb(at + 1, 1))
	if not layout then
		tree:add(fields["ext.value"], p.tvb(at + 2, length - 2))
		need(kind < X_CRITICAL, "an unknown critical extension")
		return
	end
	need(kind == X_ACK or kind == X_PIECE or kind == own, "an extension of another opcode")
	need(not p.lengths[kind], "an extension that is there twice")
	p.lengths[kind] = length
	if kind == X_ACK then
		need(length >= 12 and length <= 12 + 8 * 14 and length % 8 == 4, "an ACK extension of this length")
	end
	local after = add_fields(p, tree, layout, at + 2, limit)
	if kind == X_ACK and after < limit then
		add_sack(p, tree, after, limit)
	end
end

local function add_extensions(p, own)
	local at, limit = BASE_LENGTH, p.header_length * 4
	p.lengths = {}
	while at < limit do
		if at + 4 > p.tvb:len() then
			drop()
		end
		local length = p.tvb(at + 1, 1):uint() * 4
		need(length > 0, "an extension of length 0")
		need(at + length <= limit, "an extension that is longer than the header")
		if at + length > p.tvb:len() then
			drop()
		end
		add_extension(p, at, length, own)
		at = at + length
	end
end

local function check_message(p, length)
	local flags = p["ext.flags"] or 0
	local got = p.lengths[OWN[p.opcode][1]]
	need(got, "the opcode's extension is missing")
	need(got == length or p.opcode == SEND and got == SEND_IMMEDIATE_LENGTH, "an extension of another length")
	need(flags <= LAST, "unknown flags in an extension")
	need(flags == LAST or not p.immediate, "an immediate before the last fragment")
	need((p.wanted or 0) <= 2 ^ 30, "more wanted than 2^30 bytes")
end

local function check_piece(p)
	local length = p.lengths[X_PIECE]
	if length then
		need(length == PIECE_LENGTH, "a PIECE extension of another length")
		need(p.piece_flags <= MORE, "unknown flags in an extension")
		need(p.piece_offset <= MOST, "a piece from beyond what a packet has")
	end
	return length
end

local function check_data(p)
	local fin = bit.band(p.flags, FIN) ~= 0
	if p.opcode ~= NONE then
		check_message(p, OWN[p.opcode][2])
	end
	if check_piece(p) then
		need(p.payload_length > 0, "a piece of nothing")
		need(p.piece_offset + p.payload_length <= MOST, "a piece that ends beyond what a packet has")
		need(p.piece_flags ~= MORE or not fin and p["ext.flags"] ~= LAST, "an end before the last piece")
	end
	if p.opcode == STREAM then
		need(p.payload_length > 0 or fin, "neither bytes nor FIN")
	elseif p.opcode == NONE then
		need(fin, "no opcode and no FIN")
		need(p.payload_length == 0, "payload where there is none")
	else
		need(not fin, "FIN beside a message")
		need(not WITHOUT_PAYLOAD[p.opcode] or p.payload_length == 0, "payload where there is none")
	end
end

local function add_base(p)
	add_fields(p, p.tree, BASE, 1, p.len)
	local length = p.header_length * 4
	need(length >= BASE_LENGTH, "a header length below the least")
	need(length <= p.len, "a header that is longer than the packet")
	need(OPCODES[p.opcode], "an unknown opcode")
	need(p.type == DATA or p.opcode == NONE, "an ACK with an opcode")
	add_extensions(p, p.type == DATA and OWN[p.opcode] and OWN[p.opcode][1])
	p.payload_length = p.len - length
	if p.payload_length > 0 and length < p.tvb:len() then
		p.tree:add(fields.payload, p.tvb(length, math.min(p.len, p.tvb:len()) - length))
	end
	if p.type == DATA then
		check_data(p)
	else
		need(not check_piece(p) or p.piece_flags ~= MORE, "MORE in an ACK")
		need(p.payload_length == 0, "payload where there is none")
	end
end

local function add_address(p)
	local v4 = p.family == 4
	need(v4 or p.family == 6, "an address of another family")
	if p.tvb:len() < 32 then
		drop()
	end
	local range = p.tvb(16, v4 and 4 or 16)
	p.tree:add(fields[v4 and "address.ipv4" or "address.ipv6"], range)
	p.address = v4 and tostring(range:ipv4()) or "[" .. tostring(range:ipv6()) .. "]"
end

local function add_control(p)
	local least = LEAST[p.type]
	need(p.tvb(3, 1):uint() * 4 >= least, "a header length below the least")
	need(p.tvb(3, 1):uint() * 4 <= p.len, "a header that is longer than the packet")
	add_fields(p, p.tree, LAYOUTS[p.type], 1, p.len)
	if p.family then
		add_address(p)
	end
	if p.len > least and p.tvb:len() > least then
		p.tree:add(fields.beyond, p.tvb(least, math.min(p.len, p.tvb:len()) - least))
	end
	need(not p.src_cid or p.src_cid:find("[^0]"), "no connection id of the sender")
	if p.packets then
		need(p.largest_packet >= 256, "a largest packet below 256")
		need(p.packets > 0, "no packets are remembered")
	end
	need(p.type ~= INIT_NAK or p.code > 0, "an INIT_NAK without a code")
end

-- Has this DATA or ACK packet a trailer? By INIT_ACK, else by the preference, else if it looks like one; then all later ones of the
-- connection have it. Nobody can tell of one that the capture has cut; most have it.
local function has_trailer(p, memo)
	local way = ways[p.tvb(8, 8):bytes():tohex()]
	if memo.crc == nil then
		local wish = sandirect.prefs.trailer
		if way and way.crc ~= nil then
			memo.crc = way.crc
		elseif wish ~= 0 then
			memo.crc = wish == 1
		else
			memo.crc = p.cut or trailer_is_right(p.tvb)
		end
	end
	return memo.crc
end

local function check_trailer(p, memo)
	p.len = p.reported - TRAILER_LENGTH
	if p.cut then
		return
	end
	p.trailer_right = trailer_is_right(p.tvb)
	if not p.trailer_right then
		p.expert = "bad_trailer"
		drop("a wrong trailer")
	end
end

local function dissect(p, memo)
	local first = p.tvb(0, 1)
	p.version, p.type, p.len = math.floor(first:uint() / 16), first:uint() % 16, p.reported
	p.tree:add(fields.version, first)
	p.tree:add(fields.type, first)
	need(p.reported >= BASE_LENGTH, "shorter than 32 bytes")
	need(TYPES[p.type], "an unknown type")
	need(p.version == VERSION or p.type == INIT, "another version")
	if p.tvb:len() < 16 then
		drop()
	end
	local control = LEAST[p.type]
	if control or has_trailer(p, memo) then
		check_trailer(p, memo)
	end
	need(p.len >= BASE_LENGTH, "a header that is longer than the packet")
	if control then
		add_control(p)
	else
		add_base(p)
	end
end

-- Last, as it is in the packet; also in one that is malformed.
local function add_trailer(p)
	if p.trailer_right ~= nil then
		p.tree:add(fields.trailer, p.tvb(p.len, TRAILER_LENGTH))
		p.tree:add(fields["trailer.status"], p.trailer_right and 1 or 0):set_generated()
	end
end

-- --- telling ---

local function relative(number, origin)
	return string.format("%.0f", origin and distance(origin, number) or number)
end

local function flag_names(p)
	local out = {}
	for _, flag in ipairs(FLAGS) do
		if bit.band(p.flags, flag[1]) ~= 0 then
			table.insert(out, flag[2])
		end
	end
	return #out > 0 and " [" .. table.concat(out, ", ") .. "]" or ""
end

local function decimal(hex)
	return tostring(UInt64.fromhex(hex))
end

-- "piece 0-1143 of " the packet with a PSN.
local function piece_of(p)
	if p.type ~= DATA or not p.piece_offset then
		return ""
	end
	return string.format("%s %d-%d of ", p.piece_flags == MORE and "piece" or "last piece", p.piece_offset,
		p.piece_offset + p.payload_length - 1)
end

local function base_line(p, memo)
	local words = {memo.ports, p.opcode > STREAM and OPCODES[p.opcode] or TYPES[p.type],
		piece_of(p) .. "PSN=" .. relative(p.psn, memo.isn), "Ack=" .. relative(p.ack, memo.back_isn)}
	if memo.ports == nil then
		table.remove(words, 1)
	end
	local ready = bit.band(p.flags, READY) ~= 0
	for _, v in ipairs({{"Off", p.offset and decimal(p.offset)}, {"SSN", p.ssn}, {"RSN", p.rsn}, {"Off", p.message_offset},
		{"Off", p.region_offset and decimal(p.region_offset)}, {"Want", p.wanted},
		{"Pieces", p.type == ACK and p.piece_offset}, {"Len", p.type == DATA and p.payload_length},
		{"Win", not ready and p.window and decimal(p.window)},
		{"Credits", ready and p.credits}}) do
		if v[2] then
			table.insert(words, string.format("%s=%s", v[1], v[2]))
		end
	end
	if p.sack_range then
		table.insert(words, "SACK=" .. sack_ranges(p, p.sack_range, memo.back_isn or 0))
	end
	if p["ext.flags"] == LAST then
		table.insert(words, "LAST")
	end
	return table.concat(words, " ") .. flag_names(p)
end

local function control_line(p)
	local line = TYPES[p.type]
	if p.src_port then
		local features = bit.band(p.features, FEATURE_CRC) ~= 0 and " [CRC32C]" or ""
		line = string.format("%s %d → %d Win=%s%s", line, p.src_port, p.dst_port, decimal(p.window), features)
		return p.attempt > 0 and line .. string.format(" attempt %d", p.attempt + 1) or line
	elseif p.address and not p.nonce:find("[^0]") and p.type == FIND_REPLY then
		return "HELLO " .. p.address
	elseif p.address then
		line = string.format("%s %s:%d", line, p.address, p.port)
		return p.type == FIND and line .. "?" or line .. " " .. (CODES[p.code] or p.code)
	elseif p.reason then
		return line .. " " .. (REASONS[p.reason] or p.reason) .. (p.psn > 0 and string.format(" PSN=%d", p.psn) or "")
	end
	return p.code and line .. " " .. (CODES[p.code] or p.code) or line
end

local function add_links(p, memo)
	local function add(name, value)
		if value then
			p.tree:add(fields[name], value):set_generated()
		end
	end
	add("connection", memo.connection)
	if p.flags then
		add("psn.relative", memo.isn and distance(memo.isn, p.psn))
		add("ack.relative", memo.back_isn and distance(memo.back_isn, p.ack))
	end
	add("repeats", memo.repeats)
	add("acknowledges", memo.acknowledges)
	add("response_in", memo.response)
	if memo.request then
		local t = memo.time - memo.request.time
		add("request_in", memo.request.frame)
		add("response_time", NSTime.new(math.floor(t), math.floor(t % 1 * 1e9 + 0.5)))
	end
end

local function tell(p, memo)
	local line = p.flags and base_line(p, memo) or control_line(p)
	add_links(p, memo)
	if memo.verdict then
		p.tree:add_proto_expert_info(experts[memo.verdict])
		line = string.format("[%s] %s", memo.verdict:gsub("_", " "), line)
	elseif p.type == INIT_NAK then
		p.tree:add_proto_expert_info(experts.refused, "Refused: " .. (CODES[p.code] or p.code))
	elseif p.type == RESET and REASONS[p.reason] ~= "FINISHED" then
		p.tree:add_proto_expert_info(experts.reset, "Reset: " .. (REASONS[p.reason] or p.reason))
	end
	return line
end

-- A router's or host's complaint about a packet quotes it, which is no transmission.
local icmp, icmpv6 = Field.new("icmp"), Field.new("icmpv6")

local function memo_of(tvb, pinfo)
	local key = pinfo.number .. "." .. tvb:offset()
	local memo = memos[key]
	if not memo then
		memo = {frame = pinfo.number, time = pinfo.rel_ts}
		memos[key] = memo
		return memo, not icmp() and not icmpv6()
	end
	return memo, false
end

function sandirect.dissector(tvb, pinfo, root)
	local memo, new = memo_of(tvb, pinfo)
	local p = {tvb = tvb, reported = tvb:reported_len(), tree = root:add(sandirect, tvb())}
	local line
	p.cut = tvb:len() < p.reported
	pinfo.cols.protocol = "Sandirect"
	local whole, problem = pcall(dissect, p, memo)
	add_trailer(p)
	if whole then
		if new then
			learn(p, memo)
		end
		line = tell(p, memo)
		p.tree:set_text("Sandirect, " .. line)
	elseif type(problem) ~= "table" then
		error(problem, 0)
	elseif problem.why and not p.cut then
		line = string.format("%s [dropped: %s]", TYPES[p.type] or "?", problem.why)
		p.tree:add_proto_expert_info(experts[p.expert or "malformed"], "Dropped: " .. problem.why)
	else
		line = TYPES[p.type] or "?"
	end
	if p.cut then
		p.tree:add_proto_expert_info(experts.cut)
		line = line .. " [cut]"
	end
	pinfo.cols.info = line
	return tvb:len()
end

DissectorTable.get("udp.port"):add(UDP_PORT, sandirect)
