-- wrk as the client of a proxy: asks for the URL given behind `--`, in absolute form; with `close` behind that, on a
-- connection of its own each time. What it counted comes last, as one line of JSON.

local request_bytes

function init(args)
   local url = args[1]
   local host = url:match("^http://([^/]+)")
   request_bytes = "GET " .. url .. " HTTP/1.1\r\nHost: " .. host .. "\r\nUser-Agent: wrk\r\nAccept: */*\r\n"
   if args[2] == "close" then
      request_bytes = request_bytes .. "Connection: close\r\n"
   end
   request_bytes = request_bytes .. "\r\n"
end

function request()
   return request_bytes
end

function done(summary, latency, requests)
   local wrong = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "bytes": %d, "wrong": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes,
      wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
