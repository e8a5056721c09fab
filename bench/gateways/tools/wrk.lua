-- Posts the body in BENCH_BODY, as many users in turn; prints one JSON object at the end.
-- BENCH_HEADERS: more headers, "name: value", one a line. BENCH_USERS: how many users (the zeros behind "user-").
local file = assert(io.open(assert(os.getenv("BENCH_BODY"), "BENCH_BODY is not set"), "rb"))
local body = file:read("*a")
file:close()

wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
for name, value in (os.getenv("BENCH_HEADERS") or ""):gmatch("([^\n:]+): ([^\n]*)") do wrk.headers[name] = value end

local users, requests, turn = tonumber(os.getenv("BENCH_USERS") or "1"), {}, 0

function init(args)
  for user = 1, users do
    local own = body:gsub("user%-00000000", string.format("user-%08d", user), 1)
    requests[user] = wrk.format(nil, nil, nil, own)
  end
end

function request()
  turn = turn % users + 1
  return requests[turn]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"seconds":%.4f,"errors":%d,"p50_us":%.1f,"p90_us":%.1f,"p99_us":%.1f,"p999_us":%.1f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
