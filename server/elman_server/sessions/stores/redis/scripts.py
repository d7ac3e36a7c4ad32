"""What Redis does in one step, in Lua.

KEYS: the session's hash and its list of segments. ARGV: now, expected, keep, expires, milliseconds to live, number of
chunks of the head, the chunks, the segments; times are unix seconds. Numbers of 2**53 and more are not exact in Lua;
revisions are microseconds of the clock of Redis, which reach that in the year 2255.

Each returns a word and a value; `{"ok", revision}` means success.
"""

from __future__ import annotations

from typing import Final

_WRITE: Final = """
local function write(revision)
  local head_end = 6 + tonumber(ARGV[6])
  redis.call('HSET', KEYS[1], 'r', revision, 'e', ARGV[4])
  for i = 7, head_end do redis.call('HSET', KEYS[1], i - 7, ARGV[i]) end
  local stale = head_end - 6
  while redis.call('HDEL', KEYS[1], stale) == 1 do stale = stale + 1 end
  for i = head_end + 1, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  return {'ok', revision}
end
"""

_FIND: Final = """
local revision, expires = unpack(redis.call('HMGET', KEYS[1], 'r', 'e'))
if not revision then return {redis.call('EXISTS', KEYS[1]) == 1 and 'odd' or 'missing', ''} end
if tonumber(expires) <= tonumber(ARGV[1]) then return {'expired', ''} end
if ARGV[2] ~= '' and ARGV[2] ~= revision then return {'changed', revision} end
"""

# Expected: the birth. An expired session makes way; its birth is returned as a third value.
CREATE: Final = (
    _WRITE
    + """
local expires, birth = unpack(redis.call('HMGET', KEYS[1], 'e', 'b'))
if expires and tonumber(expires) > tonumber(ARGV[1]) then return {'exists', ''} end
redis.call('DEL', KEYS[1], KEYS[2])
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'b', ARGV[2])
local answer = write(string.format('%.0f', now[1] * 1000000 + now[2]))
answer[3] = birth or ''
return answer
"""
)

# Expected: the revision.
COMMIT: Final = (
    _WRITE
    + _FIND
    + """
if ARGV[3] == '0' then redis.call('DEL', KEYS[2])
elseif ARGV[3] ~= '' then redis.call('LTRIM', KEYS[2], 0, ARGV[3] - 1) end
return write(string.format('%.0f', revision + 1))
"""
)

# Expected: the revision, or '' for any. The value is the birth.
DELETE: Final = (
    _FIND
    + """
local birth = redis.call('HGET', KEYS[1], 'b')
redis.call('DEL', KEYS[1], KEYS[2])
return {'ok', birth or ''}
"""
)
