-- Has wrk print one line of JSON at its end: counts, octets with heads, and the median latency in microseconds.
done = function(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('\n{"requests": %d, "octets": %d, "errors": %d, "median_us": %g}\n',
        summary.requests, summary.bytes, failed, latency:percentile(50)))
end
