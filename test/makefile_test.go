// Package test_test holds the Makefile to what the documents say of it.
package test_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestDocumentsNameTargetsThatExist(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindStringSubmatch(string(makefile))
	if phony == nil || !slices.Equal(strings.Fields(phony[1]), targets) {
		t.Errorf("the targets are %q, and .PHONY has %q", targets, phony)
	}
	named := 0
	command := regexp.MustCompile("(?m)(?:^\\s*|`)make ([a-z-]+)(?:`| *#| *$)")
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range command.FindAllStringSubmatch(string(text), -1) {
			named++
			if !slices.Contains(targets, m[1]) {
				t.Errorf("%s says make %s, which the Makefile does not have", path, m[1])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if named < 5 {
		t.Errorf("found only %d commands", named)
	}
}
