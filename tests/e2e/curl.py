"""As much of curl as our printed lines use, for machines that have none: -s, -H and -d."""

import argparse
import sys
import urllib.error
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("-s", action="store_true")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="data", type=str.encode)
parser.add_argument("url")
given = parser.parse_args()
headers = dict(line.split(": ", 1) for line in given.headers)
request = urllib.request.Request(given.url, data=given.data, headers=headers)  # noqa: S310
try:
    with urllib.request.urlopen(request) as response:  # noqa: S310 (the URL is our own)
        body = response.read()
except urllib.error.HTTPError as error:
    body = error.read()
sys.stdout.buffer.write(body)
