package live_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const doc = "../../docs/live.md"

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// asked says where a row is asked, or why it is not.
func asked(r row, tg target) string {
	if tg.kind == embedded {
		tg.hurried = r.timed
	}
	switch why := r.reason(tg); {
	case why != "":
		return "not asked: " + why
	case tg.hurried:
		return "asked, with short intervals"
	}
	return "asked"
}

// TestTableMatchesRows compares the table of docs/live.md with the rows.
func TestTableMatchesRows(t *testing.T) {
	ofItself(t)
	const begin, end = "<!-- situations -->\n", "<!-- end of situations -->"
	var b strings.Builder
	b.WriteString("| situation | expected of the service | emulator | embedded server | section of pubsub.md; embedded server; test |\n|---|---|---|---|---|\n")
	service := serviceTarget("p", "us-east1", "", true)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s; `%s`; `%s` |\n", r.situation, r.expectedOf(service),
			asked(r, localTarget(emulated, "")), asked(r, localTarget(embedded, "")), r.section, r.server, r.test)
		if why := r.reason(service); why != "" {
			t.Errorf("%s: not asked of the service: %s", r.situation, why)
		}
	}
	text := read(t, doc)
	before, rest, found := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatal("docs/live.md has no place for the table")
	}
	want := before + begin + "\n" + b.String() + "\n" + end + after
	if *flagUpdate {
		if err := os.WriteFile(doc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != want {
		t.Error("docs/live.md differs from the rows; run go test ./test/live -run Table -update")
	}
}

// TestRowsNameExistingSectionsFilesAndTests: a row names the section, the file and the test
// that a person must change after a difference.
func TestRowsNameExistingSectionsFilesAndTests(t *testing.T) {
	ofItself(t)
	page := read(t, "../../docs/pubsub.md")
	ids := map[string]bool{}
	for _, r := range rows {
		if ids[r.id] || r.ask == nil {
			t.Errorf("%s: its id %q is there twice, or it asks nothing", r.situation, r.id)
		}
		ids[r.id] = true
		if !strings.Contains(page, "- **"+r.section+".** ") && !strings.Contains(page, "## "+r.section+"\n") {
			t.Errorf("%s: docs/pubsub.md has no section %q", r.situation, r.section)
		}
		if r.server != "none" {
			read(t, filepath.Join("../..", r.server))
		}
		dir, name, _ := strings.Cut(r.test, " ")
		files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			found = found || strings.Contains(read(t, file), "\nfunc "+name+"(t *testing.T)")
		}
		if !found {
			t.Errorf("%s: there is no test %s", r.situation, r.test)
		}
	}
}

// TestCommandsHaveKnownFlags: the flags in the commands of docs/live.md must exist, and
// accept the values there.
func TestCommandsHaveKnownFlags(t *testing.T) {
	ofItself(t)
	flags := regexp.MustCompile(`-(live\.[a-z]+|timeout|v)(?:[= ]'?([^\s']+)'?)?`)
	commands := regexp.MustCompile(`(?m)^go test \./test/live(.*)$`).FindAllStringSubmatch(read(t, doc), -1)
	if len(commands) < 5 {
		t.Fatalf("found %d commands", len(commands))
	}
	for _, command := range commands {
		for _, found := range flags.FindAllStringSubmatch(command[1], -1) {
			if name := found[1]; strings.HasPrefix(name, "live.") && flag.Lookup(name) == nil {
				t.Errorf("%s: there is no flag -%s", command[0], name)
			}
			if row := found[2]; found[1] == "live.row" && len(filterRows(rows, row)) == 0 {
				t.Errorf("%s: there is no such row", command[0])
			}
		}
	}
	text := read(t, doc)
	for _, want := range []string{"`" + prefix + "`", "label `" + label + "`", "labels." + label + ":*"} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/live.md does not say %s", want)
		}
	}
}
