// Package docs_test compares design.md with the code.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = ".."

func design(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("design.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDesignNamesFunctions checks that each `file:function` of the page exists.
func TestDesignNamesFunctions(t *testing.T) {
	found := regexp.MustCompile("`([a-z][\\w./]*\\.go)(?::(\\w+))?`").FindAllStringSubmatch(design(t), -1)
	if len(found) < 20 {
		t.Fatalf("the page names only %d functions", len(found))
	}
	for _, m := range found {
		file, function := m[1], m[2]
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(file)), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("the page names %s: %v", file, err)
			continue
		}
		if function != "" && !declares(parsed, function) {
			t.Errorf("%s has no function %s", file, function)
		}
	}
}

func declares(file *ast.File, function string) bool {
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == function {
			return true
		}
	}
	return false
}

// TestDesignListsPackages checks that each package of the worker has a line, and that
// no line is about another one.
func TestDesignListsPackages(t *testing.T) {
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([\\w/]+)` \\|").FindAllStringSubmatch(design(t), -1) {
		listed[m[1]] = true
	}
	for _, below := range []string{"cmd", "config", "internal", "recorder"} {
		err := filepath.WalkDir(filepath.Join(root, below), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if name := filepath.ToSlash(dir); err == nil && !listed[name] {
				t.Errorf("the page has no line for the package %s", name)
				listed[name] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range listed {
		if sources, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(name), "*.go")); err != nil || len(sources) == 0 {
			t.Errorf("the page has a line for %s, which is no package", name)
		}
	}
}

// TestDecisionsAreListed checks that the index has each decision.
func TestDecisionsAreListed(t *testing.T) {
	index, err := os.ReadFile("decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("decisions/*.md")
	if err != nil || len(pages) < 4 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	for _, page := range pages {
		if name := filepath.Base(page); name != "README.md" && !strings.Contains(string(index), "("+name+")") {
			t.Errorf("decisions/README.md does not list %s", name)
		}
	}
}
