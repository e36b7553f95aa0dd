// Command dockerlint checks a Dockerfile as far as that is possible without a
// container engine: BuildKit's own parser must accept every instruction,
// BuildKit's parser-level rules must have nothing to say, every file that is
// copied from the build context must exist in it, the image must run a program of
// its own as a user other than root, and every image that is fetched must be named
// by its digest.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go -C tools run ./dockerlint DOCKERFILE   (relative to tools)")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check returns everything that is wrong with the Dockerfile at path, whose
// build context is the directory that it lies in.
func check(path string) error {
	stages, faults := parse(path)
	if len(stages) == 0 {
		return errors.Join(append(faults, fmt.Errorf("%s: no stage", path))...)
	}
	faults = append(faults, checkDigests(path, stages)...)
	for _, stage := range stages {
		for _, command := range stage.Commands {
			if c, ok := command.(*instructions.CopyCommand); ok && c.From == "" {
				faults = append(faults, checkSources(path, c)...)
			}
		}
	}
	return errors.Join(append(faults, checkImage(path, stages[len(stages)-1])...)...)
}

// parse returns the stages and, as faults, what BuildKit refuses or warns of.
func parse(path string) (stages []instructions.Stage, faults []error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, []error{err}
	}
	result, err := parser.Parse(bytes.NewReader(content))
	if err != nil {
		return nil, []error{fmt.Errorf("%s: %w", path, err)}
	}
	for _, w := range result.Warnings {
		faults = append(faults, fmt.Errorf("%s:%d: %s", path, w.Location.Start.Line, w.Short))
	}
	rules := linter.New(&linter.Config{Warn: func(rule, _, url, message string, at []parser.Range) {
		faults = append(faults, fmt.Errorf("%s:%s: %s: %s (%s)", path, line(at), rule, message, url))
	}})
	stages, _, err = instructions.Parse(result.AST, rules)
	if err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", path, err))
	}
	return stages, faults
}

// digest matches the end of a name that always means the same image.
var digest = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)

// checkDigests reports images that can be replaced under their tag: those of the stages,
// those that files are copied from, and the one of the syntax line.
func checkDigests(path string, stages []instructions.Stage) (faults []error) {
	known := map[string]bool{"scratch": true}
	check := func(image string, at []parser.Range) {
		if _, err := strconv.Atoi(image); err != nil && !known[strings.ToLower(image)] && !digest.MatchString(image) {
			faults = append(faults, fmt.Errorf("%s:%s: the image %s has no digest: pin it as NAME:TAG@sha256:…", path, line(at), image))
		}
	}
	for _, stage := range stages {
		check(stage.BaseName, stage.Location)
		for _, command := range stage.Commands {
			if c, ok := command.(*instructions.CopyCommand); ok && c.From != "" {
				check(c.From, c.Location())
			}
		}
		known[strings.ToLower(stage.Name)] = true
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return append(faults, err)
	}
	if syntax, _, at, ok := parser.DetectSyntax(content); ok {
		check(syntax, at)
	}
	return faults
}

// checkSources reports sources of a COPY that match nothing in the context.
func checkSources(path string, c *instructions.CopyCommand) (faults []error) {
	for _, source := range c.SourcePaths {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(path), source))
		if err == nil && len(found) == 0 {
			err = errors.New("no such file in the build context")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%s: COPY %s: %w", path, line(c.Location()), source, err))
		}
	}
	return faults
}

// checkImage reports a last stage that would run as root, or through a shell
// that the base image does not have.
func checkImage(path string, image instructions.Stage) (faults []error) {
	var user string
	var entrypoint *instructions.EntrypointCommand
	for _, command := range image.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user, _, _ = strings.Cut(c.User, ":")
		case *instructions.EntrypointCommand:
			entrypoint = c
		}
	}
	if user == "" || user == "0" || user == "root" {
		faults = append(faults, fmt.Errorf("%s: the image runs as root: it needs a USER", path))
	}
	if entrypoint == nil || entrypoint.PrependShell {
		faults = append(faults, fmt.Errorf(`%s: the image needs an ENTRYPOINT of the form ["/program"]`, path))
	}
	return faults
}

// line is the number of the first line of a location.
func line(at []parser.Range) string {
	if len(at) == 0 {
		return "?"
	}
	return fmt.Sprint(at[0].Start.Line)
}
