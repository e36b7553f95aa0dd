package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsNameExistingTests requires that each test exists that a document names, in
// backquotes or after -run.
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
