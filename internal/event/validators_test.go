package event

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	google "github.com/google/jsonschema-go/jsonschema"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// Publishers choose their own validator. These tests load the schema in others than the
// exact one of TestSchemaGenerated and compare their results for a generated corpus. All of
// them read numbers as 64-bit floats.

// validatorCorpus returns documents that a validator can read, one JSON text a line.
func validatorCorpus(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(data string) {
		var compact bytes.Buffer
		if _, document := schemaSays(compileSchemaOnce(t), []byte(data)); document && json.Compact(&compact, []byte(data)) == nil {
			all = append(all, compact.String())
		}
	}
	for _, data := range seeds() {
		add(data)
	}
	generated := rapid.Custom(func(t *rapid.T) string { return drawObject(t, "") })
	for seed := range 3000 {
		add(generated.Example(seed))
	}
	for object, fields := range known {
		for _, field := range fields {
			for _, value := range fragments {
				switch {
				case object != "":
					add(fmt.Sprintf(`{"feature":"ab","action":"cd",%q:{%q:%s}}`, object, field, value))
				case field != "feature" && field != "action":
					add(fmt.Sprintf(`{"feature":"ab","action":"cd",%q:%s}`, field, value))
				default:
					add(strings.Replace(`{"feature":"ab","action":"cd"}`, fmt.Sprintf("%q:%q", field, map[string]string{"feature": "ab", "action": "cd"}[field]), fmt.Sprintf("%q:%s", field, value), 1))
				}
			}
		}
	}
	return all
}

var compiledSchema *jsonschema.Schema

func compileSchemaOnce(t *testing.T) *jsonschema.Schema {
	if compiledSchema == nil {
		compiledSchema = compileSchema(t)
	}
	return compiledSchema
}

// edgeOfIntegers is an integer that a 64-bit float cannot tell from one in range.
var edgeOfIntegers = regexp.MustCompile(`"userId":(9223372036854775808|-9223372036854775809)[,}]`)

// compareValidator fails unless a validator and the decoder agree on each document, except
// for the cases that docs/publishing.md lists.
func compareValidator(t *testing.T, corpus []string, says func(i int) bool) {
	t.Helper()
	counts := map[bool]int{}
	for i, data := range corpus {
		accepted, detail := decoderSays(t, []byte(data))
		counts[accepted]++
		switch valid := says(i); {
		case accepted && !valid && !yearZero.MatchString(data):
			t.Errorf("refuses what the decoder takes: %.300s", data)
		case !accepted && valid && !beyond([]byte(data), detail) && !edgeOfIntegers.MatchString(data):
			t.Errorf("takes what the decoder rejects with %q: %.300s", detail, data)
		}
	}
	t.Logf("%d documents that the decoder takes, %d that it rejects", counts[true], counts[false])
	if counts[true] < 500 || counts[false] < 500 {
		t.Error("not much of a corpus")
	}
}

// TestSchemaGoogle uses google/jsonschema-go, which reads the schema's own numbers as
// floats, too.
func TestSchemaGoogle(t *testing.T) {
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var schema google.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	corpus := validatorCorpus(t)
	compareValidator(t, corpus, func(i int) bool {
		var tree any
		return json.Unmarshal([]byte(corpus[i]), &tree) == nil && resolved.Validate(tree) == nil
	})
}

// run compares the output of a program for the corpus: 1 or 0 for each line.
func runValidator(ctx context.Context, t *testing.T, corpus []string, name string, args ...string) {
	t.Helper()
	schema, err := filepath.Abs(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	documents := filepath.Join(t.TempDir(), "documents.ndjson")
	if err := os.WriteFile(documents, []byte(strings.Join(corpus, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, append(args, schema, documents)...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	verdicts := strings.Fields(string(output))
	if len(verdicts) != len(corpus) {
		t.Fatalf("%d verdicts on %d documents\n%s", len(verdicts), len(corpus), stderr.Bytes())
	}
	compareValidator(t, corpus, func(i int) bool { return verdicts[i] == "1" })
}

// TestSchemaAjv uses Ajv with its defaults, as Node services do.
func TestSchemaAjv(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := testenv.NPM(ctx, t, "testdata/validators")
	runValidator(ctx, t, validatorCorpus(t), "node", filepath.Join(dir, "ajv.mjs"))
}

// TestSchemaPython uses jsonschema, whose patterns are Python's.
func TestSchemaPython(t *testing.T) {
	testenv.Needs(t, "python3")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if output, err := exec.CommandContext(ctx, "python3", "-c", "import jsonschema").CombinedOutput(); err != nil {
		testenv.NotTested(t, fmt.Sprintf("Python's jsonschema is not installed here: %s", bytes.TrimSpace(output)))
	}
	runValidator(ctx, t, validatorCorpus(t), "python3", "testdata/validators/validate.py")
}
