"""Prints 1 or 0 for each document of a file, a JSON text a line: whether it is valid
by the schema, to Python's jsonschema.

    python3 validate.py SCHEMA DOCUMENTS
"""

import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
with open(sys.argv[2], encoding="utf-8") as file:
    for line in file.read().split("\n")[:-1]:
        print(1 if validator.is_valid(json.loads(line)) else 0)
