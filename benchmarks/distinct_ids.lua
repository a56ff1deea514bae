-- wrk's request maker: the request in the file args[1], with "@@@@@@@@@@@@" in it replaced by an id that is new each time.
-- args[2] is the run's own prefix of four characters. Prints its figures as one line of JSON.

local parts, prefix, number = {}, "", 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  for part in (text .. "@@@@@@@@@@@@"):gmatch("(.-)@@@@@@@@@@@@") do
    parts[#parts + 1] = part
  end
  prefix = args[2]
end

function request()
  number = number + 1
  return table.concat(parts, string.format("%s%08d", prefix, number))
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p99": %f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
