-- Has wrk print one line of JSON at its end: counts, octets with heads, and the median latency in microseconds.
-- With the argument "varied" each request has a query of its own.
init = function(arguments)
    if arguments[1] == "varied" then
        local number = 0
        request = function()
            number = number + 1
            return wrk.format(nil, wrk.path .. "?" .. number)
        end
    end
end

done = function(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('\n{"requests": %d, "octets": %d, "errors": %d, "median_us": %g}\n',
        summary.requests, summary.bytes, failed, latency:percentile(50)))
end
