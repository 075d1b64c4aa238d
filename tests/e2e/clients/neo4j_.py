"""usage: neo4j_.py write|read NAME"""

import sys
from pathlib import Path

from neo4j import GraphDatabase

_, action, name = sys.argv
secret = {path.name: path.read_text() for path in Path("/bindings/neo4j").iterdir() if path.is_file()}
with GraphDatabase.driver(secret["uri"], auth=(secret["username"], secret["password"])) as driver:
    if action == "write":
        driver.execute_query("CREATE (:Idea {name: $name})-[:LEADS_TO]->(:Work {name: $name})", name=name)
    query = "MATCH (i:Idea {name: $name})-[:LEADS_TO]->(w) RETURN count(w) AS n"
    print(driver.execute_query(query, name=name).records[0]["n"])
