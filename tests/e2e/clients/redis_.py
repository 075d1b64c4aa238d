"""usage: redis_.py write|read|pubsub|refused|clients KEY"""

import sys
from pathlib import Path

import redis

_, action, key = sys.argv
secret = {path.name: path.read_text() for path in Path("/bindings/redis").iterdir() if path.is_file()}
client = redis.Redis.from_url(secret["uri"], socket_timeout=5, decode_responses=True)
if action == "write":
    print(client.set(key, "written"))
elif action == "read":
    print(client.get(key))
elif action == "pubsub":
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(key)
    listener.get_message(timeout=5)
    client.publish(key, "heard")
    print(listener.get_message(timeout=5)["data"])
elif action == "refused":
    try:
        redis.Redis(host=secret["host"], port=int(secret["port"]), socket_timeout=5).get(key)
    except redis.exceptions.AuthenticationError as error:
        print(f"refused: {error}")
    try:
        client.config_get("maxclients")
    except redis.exceptions.NoPermissionError as error:
        print(f"refused: {error}")
elif action == "clients":
    # As many connections as the server gives, held for a while: what an application in trouble does.
    import time

    held = []
    try:
        while len(held) < 2000:
            held.append(redis.Redis.from_url(secret["uri"], socket_timeout=5, single_connection_client=True))
            held[-1].ping()
    except redis.exceptions.ConnectionError as error:
        print(len(held) - 1, error, flush=True)
    time.sleep(float(key))
