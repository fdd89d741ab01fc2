-- wrk ... -- BODY_FILE EXPECTED NUMBER [HEADER=VALUE ...]: POST one body, look at every answer, end with one line of JSON.
-- Where the body has the digits NUMBER, they count up from request to request; an empty NUMBER sends it as it is.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  good, refused, bad, first_bad = 0, 0, 0, ""
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  file:close()
  expected = args[2]
  wrk.headers["content-type"] = "application/json"
  for i = 4, #args do
    local name, value = string.match(args[i], "([^=]+)=(.*)")
    wrk.headers[name] = value
  end
  if args[3] ~= "" then count_up(args[3]) end
end

function count_up(digits)
  local before, after = string.match(wrk.format(), "^(.*)" .. digits .. "(.*)$")
  local form, sent = "%0" .. #digits .. "d", 0
  function request()
    sent = sent + 1
    return before .. string.format(form, sent) .. after
  end
end

function response(status, headers, body)
  if status == 200 and string.find(body, expected, 1, true) then
    good = good + 1
  elseif status == 503 or status == 429 then
    refused = refused + 1
  else
    bad = bad + 1
    first_bad = status .. " " .. string.sub(body, 1, 200)
  end
end

function done(summary, latency, requests)
  local good, refused, bad, first_bad = 0, 0, 0, ""
  for _, thread in ipairs(threads) do
    good, refused, bad = good + thread:get("good"), refused + thread:get("refused"), bad + thread:get("bad")
    first_bad = thread:get("first_bad")
  end
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\nRESULT {"seconds": %.6f, "good": %d, "refused": %d, "bad": %d, "broken": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.duration / 1e6, good, refused, bad, broken, latency:percentile(50), latency:percentile(99)))
  if bad > 0 then io.write("BAD ", (string.gsub(first_bad, "%s+", " ")), "\n") end
end
