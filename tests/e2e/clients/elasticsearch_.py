"""usage: elasticsearch_.py write|search INDEX"""

import sys
from pathlib import Path

from elasticsearch import Elasticsearch

_, action, index = sys.argv
secret = {path.name: path.read_text() for path in Path("/bindings/elasticsearch").iterdir() if path.is_file()}
url = f"http://{secret['host']}:{secret['port']}"
with Elasticsearch(url, basic_auth=(secret["username"], secret["password"]), request_timeout=20) as client:
    if action == "write":
        client.index(index=index, id="1", document={"text": "creative operating system"}, refresh=True)
    found = client.search(index=index, query={"match": {"text": "creative"}})
    print(found["hits"]["total"]["value"])
