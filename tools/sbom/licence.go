package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

// allowed are the licences with which a binary may be shipped that is not open
// source itself: they ask for no more than a notice.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// certain is how well a text must agree with a licence's.
const certain = 0.9

// finder finds the licences of modules.
type finder struct {
	classifier *classifier.Classifier
	dirs       map[string]string // of modules
}

// newFinder returns a finder for the modules that the module at root may use.
func newFinder(ctx context.Context, root string) (*finder, error) {
	c, err := assets.DefaultClassifier()
	if err != nil {
		return nil, fmt.Errorf("read the known licences: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-json=Path,Dir,Replace", "all")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules of %s: %w", root, err)
	}
	f := &finder{classifier: c, dirs: map[string]string{standard: runtime.GOROOT()}} //nolint:staticcheck // The toolchain that runs this has built the binary, too.
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Dir string }
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF):
			return f, nil
		case err != nil:
			return nil, err
		}
		f.dirs[m.Path] = m.Dir
	}
}

// licence returns the SPDX expression of a module's licences.
func (f *finder) licence(path string) (string, error) {
	dir := f.dirs[path]
	if dir == "" {
		return "", fmt.Errorf("%s: its files are not here: go mod download", path)
	}
	var found []string
	for _, pattern := range []string{"LICEN[SC]E*", "licen[sc]e*", "COPYING*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		for _, file := range paths {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			found = append(found, f.classify(text)...)
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) == 0 {
		return "", fmt.Errorf("%s: no licence was recognized in %s", path, dir)
	}
	for _, licence := range found {
		if !slices.Contains(allowed, licence) {
			return licence, fmt.Errorf("%s: the licence %s is none of %q; replace the module, or decide to allow it", path, licence, allowed)
		}
	}
	return strings.Join(found, " AND "), nil
}

func (f *finder) classify(text []byte) (ids []string) {
	for _, match := range f.classifier.Match(text).Matches {
		if match.MatchType == "License" && match.Confidence >= certain {
			ids = append(ids, match.Name)
		}
	}
	return ids
}
