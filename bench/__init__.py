"""
How much proxyd costs, side by side with other proxies: C{make bench}.

One proxy at a time is under load, pinned to the first core; origin servers and
load have the last one.  The rounds of all proxies of a row interleave, and
medians are compared.  The main figure is CPU time per unit of work, of the
proxy's process with its children: it moves less with the machine's load than
requests per second do.  Quote ratios of one run, of rows that were steady:
where the rounds of one proxy are far apart, others had the machine, too; on a
virtual machine a row says so where its host knows of it.
nginx, HAProxy and Python are Debian's, with the optimisations that
distributions build them with.

proxyd has everything on that it has on by default, a table of ten rules of
which the last one matches, metrics, and an access log in a file.  The load of
a row repeats one request: each connection reads it once, and the table
remembers its path.  In the row C{varied} no two requests are the same, and
C{rules} measures paths that the table has not seen.

Some rows show a bare relay beside the peers: a program on proxyd's reactor
that hands octets on and looks at nothing.  What it costs, no proxy on that
reactor can fall below::

    lab         servers on their cores, their CPU time and memory
    origins     the servers behind the proxies, and their certificate
    proxies     proxyd and its peers: how each is configured and started
    load        wrk, curl, and the WebSocket client of c/
    rows        what one row is: measurements that interleave, and what is demanded
    http, websocket, tls, tunnel, memory, rules, start
                the rows, by subject
    report      the table, and RESULTS.md
    c/          the WebSocket client and its origin server, in C
    peers/      the other proxies' programs and configurations
"""
