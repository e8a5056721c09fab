"""The store's Lua scripts: each is one atomic step, so no crash leaves half of it behind.

The scripts touch several keys without a common hash slot: the store is one server, or one primary with replicas.
"""

from __future__ import annotations

# What the scripts that write to the audit begin with: `append` numbers an entry and chains it to the one before, in the
# same step that writes what the entry tells of, so no two writers ever race for the chain. `head` holds "seq chain" of
# the last entry, `entry` the new one's digest, fields and values (chain.sealed). Lua here has no SHA-256 of its
# own, so this is FIPS 180-4; what it hashes is as short as two hashes and a number, however long the entry is.
_APPEND = """
local band, bnot, bxor, ror, shr, tobit = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.tobit
local rounds = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
local function sha256(text)
  local hash = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
  text = text .. '\\128' .. string.rep('\\0', (55 - #text) % 64) .. struct.pack('>I8', 8 * #text)
  for block = 1, #text, 64 do
    local w = {struct.unpack('>' .. string.rep('I4', 16), text, block)}
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      local near, far = bxor(ror(x, 7), ror(x, 18), shr(x, 3)), bxor(ror(y, 17), ror(y, 19), shr(y, 10))
      w[i] = tobit(w[i - 16] + near + w[i - 7] + far)
    end
    local a, b, c, d, e, f, g, h = unpack(hash)
    for i = 1, 64 do
      local s = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) + rounds[i] + w[i]
      local t = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c))
      a, b, c, d, e, f, g, h = tobit(s + t), a, b, c, tobit(d + s), e, f, g
    end
    for i, more in ipairs({a, b, c, d, e, f, g, h}) do hash[i] = tobit(hash[i] + more) end
  end
  for i = 1, 8 do hash[i] = bit.tohex(hash[i]) end
  return table.concat(hash)
end
local function append(stream, head, entry)
  local last, before = string.match(redis.call('GET', head) or '', '^(%d+) (%x+)$')
  local seq = string.format('%d', (last or 0) + 1)
  local chain = sha256((before or string.rep('0', 64)) .. ' ' .. seq .. ' ' .. entry[1])
  redis.call('XADD', stream, '*', 'seq', seq, 'chain', chain, unpack(entry, 2))
  redis.call('SET', head, seq .. ' ' .. chain)
end
"""

# KEYS: flushed, references, then for each batch its tally hash and its bitmap of units. ARGV: worker, seq, then for
# each batch its model if it is a reference ('' else), the count of its fields, (command, field, increment) for each,
# and its claims: JSON of (offset, fields if the bit was not set, fields if it was), '' for none. The number is written
# first: a flush is applied at most once, whatever follows. A reference that nobody takes in stops at 20,000 fields; a
# bitmap that nobody writes goes after a month.
FLUSH = """
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '-1')
if tonumber(ARGV[2]) <= last then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local at = 3
for key = 3, #KEYS, 2 do
  local tally, units, model, fields = KEYS[key], KEYS[key + 1], ARGV[at], tonumber(ARGV[at + 1])
  local open = true
  at = at + 2
  if model ~= '' then
    redis.call('SADD', KEYS[2], model)
    open = redis.call('HLEN', tally) < 20000
  end
  for _ = 1, fields do
    if open then redis.call(ARGV[at], tally, ARGV[at + 1], ARGV[at + 2]) end
    at = at + 3
  end
  if ARGV[at] ~= '' then
    for _, claim in ipairs(cjson.decode(ARGV[at])) do
      local known = redis.call('SETBIT', units, claim[1], 1)
      for field, more in pairs(claim[2 + known]) do redis.call('HINCRBY', tally, field, more) end
    end
    redis.call('EXPIRE', units, 2592000)
  end
  at = at + 1
end
return 1
"""

# KEYS: the set of models. ARGV: the digest known ('' for none), then what stands before and behind a model's name in
# the key of its split. Returns the digest of all splits and, if it is another one, their texts: a flat JSON list of
# (model, text), '' for a model without a split. A thousand unchanged splits cost one round trip and forty bytes.
SPLITS = """
local models = redis.call('SMEMBERS', KEYS[1])
table.sort(models)
local found = {}
for _, model in ipairs(models) do
  found[#found + 1] = model
  found[#found + 1] = redis.call('GET', ARGV[2] .. model .. ARGV[3]) or ''
end
local text = #found > 0 and cjson.encode(found) or '[]'
local digest = redis.sha1hex(text)
if digest == ARGV[1] then return {digest, ''} end
return {digest, text}
"""

# KEYS: leader, token. ARGV: id, the token held ('' for none), lease in ms. Returns the token, 0 when another leads.
LEAD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] .. ':' .. ARGV[2] then return 0 end
local token = holder and tonumber(ARGV[2]) or redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token, 'PX', ARGV[3])
return token
"""

# KEYS: leader. ARGV: "id:token". Gives the lease back if it is still ours.
RESIGN = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# KEYS: leader, then keys to set. ARGV: fence, then a value a key. Returns 0 and writes nothing when fenced off.
FENCED_SET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for index = 2, #KEYS do redis.call('SET', KEYS[index], ARGV[index]) end
return 1
"""

# KEYS: leader, acknowledged, audit, its head. ARGV: fence, generation, then the audit entry.
# Returns 0 when fenced off or recorded before.
ACKNOWLEDGED = (
    _APPEND
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '-1') >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
append(KEYS[3], KEYS[4], {unpack(ARGV, 3)})
return 1
"""
)

# KEYS: a gate's report, the ledger of load tests, audit, its head. ARGV: the report, its name in the ledger ('' for no
# load test) and what is kept of it there, then the audit entry, which comes first: no evidence that nobody put there.
REPORT = (
    _APPEND
    + """
append(KEYS[3], KEYS[4], {unpack(ARGV, 4)})
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) end
return 1
"""
)

# The one way a release changes. KEYS: release, split, models, audit, leader, command, quarantine, attempts, results,
# the audit's head. ARGV: change (JSON), the expected state's text ('' for none), the new state's text, the split's text
# ('' for no change), channel. The change holds model, fence, quarantine, absolve, attempt, result, reply, and the audit
# entry. States are compared as whole texts: an equal text is an equal state, so a decision made on it still stands.
COMMIT = (
    _APPEND
    + """
local change = cjson.decode(ARGV[1])
if change.reply ~= '' then
  local before = redis.call('GET', KEYS[6])
  if before then return {'replayed', before} end
end
if change.fence ~= '' and redis.call('GET', KEYS[5]) ~= change.fence then return {'fenced', ''} end
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[2] then return {'conflict', current} end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('SADD', KEYS[3], change.model)
append(KEYS[4], KEYS[10], change.audit)
for digest, reason in pairs(change.quarantine) do redis.call('HSET', KEYS[7], digest, reason) end
for _, digest in ipairs(change.absolve) do redis.call('HDEL', KEYS[7], digest) end
for release, attempt in pairs(change.attempt) do redis.call('HSET', KEYS[8], release, attempt) end
if change.result ~= '' then redis.call('HINCRBY', KEYS[9], change.model .. '|' .. change.result, 1) end
if change.reply ~= '' then redis.call('SET', KEYS[6], change.reply, 'EX', 86400) end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[2], ARGV[4])
  redis.call('PUBLISH', ARGV[5], ARGV[4])
end
return {'ok', ''}
"""
)

# KEYS: api keys, audit, its head. ARGV: the key's hash, its record as it is now ('' for none), the new record, channel,
# then the audit entry. Returns 0 and writes nothing when the record is another.
SET_KEY = (
    _APPEND
    + """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
append(KEYS[2], KEYS[3], {unpack(ARGV, 5)})
redis.call('PUBLISH', ARGV[4], ARGV[1] .. ' ' .. ARGV[3])
return 1
"""
)

# What workers tell each other of the API keys' use. KEYS: workers, then for each key its hash of this minute, of the
# minute before and of the day. ARGV: worker, age in ms of the oldest heartbeat that counts, then for each key what this
# worker has used: requests and tokens of this minute, of the minute before, USD of the day. A worker writes its own
# sums, never increments, so a call that is repeated changes nothing and a store that lost them has them again. Returns
# the store's time in Unix seconds, the number of living workers, and for each key the sums of all other workers.
USAGE = """
local me, time = ARGV[1], redis.call('TIME')
local function exchange(key, text, nothing, seconds)
  local all, mine, first, second = redis.call('HGETALL', key), nothing, 0, 0
  for at = 1, #all, 2 do
    if all[at] == me then
      mine = all[at + 1]
    else
      local one, two = string.match(all[at + 1], '^(%S+) ?(%S*)$')
      first, second = first + (tonumber(one) or 0), second + (tonumber(two) or 0)
    end
  end
  if text ~= mine then
    redis.call('HSET', key, me, text)
    redis.call('EXPIRE', key, seconds)
  end
  return string.format('%.17g %.17g', first, second)
end
local reply = {time[1] .. '.' .. string.format('%06d', time[2]), 0}
reply[2] = redis.call('ZCOUNT', KEYS[1], time[1] * 1000 - ARGV[2], '+inf')
for key = 0, (#KEYS - 1) / 3 - 1 do
  local at = 3 + key * 5
  local now = exchange(KEYS[key * 3 + 2], ARGV[at] .. ' ' .. ARGV[at + 1], '0 0', 300)
  local before = exchange(KEYS[key * 3 + 3], ARGV[at + 2] .. ' ' .. ARGV[at + 3], '0 0', 300)
  reply[#reply + 1] = now .. ' ' .. before .. ' ' .. exchange(KEYS[key * 3 + 4], ARGV[at + 4], '0.0', 172800)
end
return reply
"""
