package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// sampled is a profile of one function.
func sampled(kind, function, file string, value int64) *profile.Profile {
	m := &profile.Mapping{ID: 1, Start: 0x1000, Limit: 0x2000, File: "/home/somebody/worker", BuildID: "b1d"}
	f := &profile.Function{ID: 1, Name: function, Filename: file}
	l := &profile.Location{ID: 1, Mapping: m, Address: 0x1010, Line: []profile.Line{{Function: f, Line: 7}}}
	return &profile.Profile{
		SampleType: []*profile.ValueType{{Type: kind, Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: kind, Unit: "nanoseconds"}, Period: 1,
		Sample:   []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{value}, Label: map[string][]string{"host": {"mine"}}}},
		Mapping:  []*profile.Mapping{m},
		Function: []*profile.Function{f}, Location: []*profile.Location{l},
		TimeNanos: 1, Comments: []string{"mine"},
	}
}

func write(t *testing.T, p *profile.Profile) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "cpu.prof")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestProfilesAreMerged(t *testing.T) {
	const decode = "example.com/event.decode"
	out := filepath.Join(t.TempDir(), "default.pgo")
	err := run(out, []string{
		write(t, sampled("cpu", decode, "example.com/event/decode.go", 3)),
		write(t, sampled("cpu", decode, "example.com/event/decode.go", 4)),
	})
	if err != nil {
		t.Fatal(err)
	}
	merged, err := read(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(merged.Sample) != 1 || merged.Sample[0].Value[0] != 7 || merged.Sample[0].Location[0].Line[0].Function.Name != decode {
		t.Errorf("got %v, want 7 of %s", merged, decode)
	}
	for _, private := range []string{"somebody", "b1d", "mine"} {
		if strings.Contains(merged.String(), private) {
			t.Errorf("%q is in the profile: %v", private, merged)
		}
	}
}

func TestBadProfilesAreRefused(t *testing.T) {
	for want, p := range map[string]*profile.Profile{
		"without -trimpath": sampled("cpu", "f", "/home/somebody/f.go", 1),
		"not a CPU profile": sampled("alloc_space", "f", "f.go", 1),
	} {
		if err := run(filepath.Join(t.TempDir(), "out"), []string{write(t, p)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestShippedProfileMatchesCode reads the profile that the worker is compiled with: it must be one
// of today's code, or the compiler makes nothing of it.
func TestShippedProfileMatchesCode(t *testing.T) {
	p, err := read("../../cmd/worker/default.pgo")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/sourcegraph/telemetry-relay/"
	for _, function := range []string{
		"internal/consume.(*reader).received", "internal/event.(*pass).decode", "internal/relay.(*loop).admit", "internal/relay.(*settlement).eventRecorded",
	} {
		found := false
		for _, f := range p.Function {
			found = found || f.Name == module+function
		}
		if !found {
			t.Errorf("%s is not in the profile: make it anew, see bench/README.md", function)
		}
	}
}
