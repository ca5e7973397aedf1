"""Everything that measures. README.md beside this file defines each number.

harness.py   repeated timing, percentiles, and the JSON line at the end
speed/       seconds and memory: clicks, load, engine, SAM, mask formats, the full-size model
quality/     right answers of the small models, over HTTP
loop/        the whole learning loop with a simulated annotator
service/     what these start and use: a private service, an annotator's page, a server of pictures
results/     kept results
"""
