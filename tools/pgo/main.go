// Command pgo makes the profile that the worker is compiled with out of CPU
// profiles of it: one of all of them, without what belongs to the machine that
// they come from.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/pprof/profile"
)

func main() {
	out := flag.String("out", "", "file to write")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go -C tools run ./pgo -out ../cmd/worker/default.pgo PROFILE...   (relative to tools)")
	}
	flag.Parse()
	if *out == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out string, files []string) (err error) {
	var all []*profile.Profile
	for _, name := range files {
		p, err := read(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, p)
	}
	merged, err := merge(all)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return merged.Write(f)
}

func read(name string) (_ *profile.Profile, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return profile.Parse(f)
}

// merge adds profiles up and takes out what the compiler does not read.
func merge(all []*profile.Profile) (*profile.Profile, error) {
	for _, p := range all {
		if !cpu(p) {
			return nil, errors.New("not a CPU profile")
		}
		for _, f := range p.Function {
			// The compiler finds functions by their names alone.
			if filepath.IsAbs(f.Filename) {
				return nil, fmt.Errorf("%s stands in %s: the profile is of a binary that was built without -trimpath", f.Name, f.Filename)
			}
		}
		for _, m := range p.Mapping {
			m.File, m.BuildID = "worker", ""
		}
		for _, s := range p.Sample {
			s.Label, s.NumLabel, s.NumUnit = nil, nil, nil
		}
		p.TimeNanos, p.DurationNanos, p.Comments = 0, 0, nil
	}
	merged, err := profile.Merge(all)
	if err != nil {
		return nil, err
	}
	return merged.Compact(), nil
}

func cpu(p *profile.Profile) bool {
	for _, t := range p.SampleType {
		if t.Type == "cpu" {
			return true
		}
	}
	return false
}
