package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocsNameExistingTests: each test that a document names, in backquotes or after -run,
// must exist.
func TestDocsNameExistingTests(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	mention := regexp.MustCompile("`(?:[a-z/]+ )?(Test[A-Z]\\w*)`|-run '?(Test[A-Z]\\w*)")
	exists := map[string]bool{}
	var documents []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			source, err := os.ReadFile(path)
			for _, found := range declared.FindAllSubmatch(source, -1) {
				exists[string(found[1])] = true
			}
			return err
		case strings.HasSuffix(path, ".md"):
			documents = append(documents, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mentions := 0
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range mention.FindAllStringSubmatch(string(text), -1) {
			mentions++
			if name := found[1] + found[2]; !exists[name] {
				t.Errorf("%s names %s, which does not exist", document, name)
			}
		}
	}
	if mentions < 50 {
		t.Errorf("found only %d names of tests in the documents", mentions)
	}
}

// TestCommandsMatchTests: for each name in a command that runs tests or benchmarks there
// must be one that matches. go test passes if none matches, which would prove nothing.
func TestCommandsMatchTests(t *testing.T) {
	command := regexp.MustCompile(`go test (\./\S+)[^\n` + "`" + `]*`)
	option := regexp.MustCompile(`-(run|bench) '?([^\s']+)`)
	names := 0
	for _, file := range markdown(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range command.FindAllStringSubmatch(string(text), -1) {
			for _, o := range option.FindAllStringSubmatch(c[0], -1) {
				if strings.Contains(c[1], "...") || slices.Contains([]string{"xxx", "-", "^$"}, o[2]) { // none, on purpose
					continue
				}
				declared := declarations(t, filepath.Join("../..", c[1]), o[1])
				for name := range strings.SplitSeq(o[2], "|") {
					names++
					matches, err := regexp.Compile(name)
					if err != nil || !slices.ContainsFunc(declared, matches.MatchString) {
						t.Errorf("%s: %s: nothing is called %s (%v)", file, c[0], name, err)
					}
				}
			}
		}
	}
	if names < 20 {
		t.Errorf("found only %d names", names)
	}
}

// declarations returns the names of a package's tests, or of its benchmarks.
func declarations(t *testing.T, dir, option string) []string {
	t.Helper()
	kind := map[string]string{"run": `(?:Test|Fuzz|Example)`, "bench": `Benchmark`}[option]
	declared := regexp.MustCompile(`(?m)^func (` + kind + `\w*)\(`)
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllSubmatch(source, -1) {
			all = append(all, string(m[1]))
		}
	}
	return all
}
