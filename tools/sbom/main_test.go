package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// TestWorkerLicensesAreAllowed describes the worker as it is shipped, and makes sure that all of
// it may be.
func TestWorkerLicensesAreAllowed(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "worker")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, "./cmd/worker")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var first, second, list bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run(t.Context(), out, binary, "1.2.3", "../..", false); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two runs differ")
	}
	if err := run(t.Context(), &list, binary, "", "../..", true); err != nil {
		t.Error(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(&first, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if c := bom.Metadata.Component; c.Name != "worker" || c.Version != "1.2.3" || len((*c.Hashes)[0].Value) != 64 {
		t.Errorf("got %+v", c)
	}
	found := map[string]string{}
	for _, c := range *bom.Components {
		if c.Version == "" || c.PackageURL != "pkg:golang/"+c.Name+"@"+c.Version {
			t.Errorf("got %+v", c)
		}
		choice := (*c.Licenses)[0]
		if found[c.Name] = choice.Expression; choice.License != nil {
			found[c.Name] = choice.License.ID
		}
		if !strings.Contains(list.String(), c.Name+" "+c.Version+" "+found[c.Name]+"\n") {
			t.Errorf("the list does not have %s", c.Name)
		}
	}
	for name, licence := range map[string]string{
		"std": "BSD-3-Clause", "go.opentelemetry.io/otel": "Apache-2.0 AND BSD-3-Clause", "google.golang.org/grpc": "Apache-2.0", "github.com/urfave/cli/v3": "MIT", "google.golang.org/protobuf": "BSD-3-Clause",
	} {
		if found[name] != licence {
			t.Errorf("%s has the licence %q, want %q", name, found[name], licence)
		}
	}
	if deps := (*bom.Dependencies)[0]; len(*deps.Dependencies) != len(*bom.Components) {
		t.Errorf("%d dependencies of %d components", len(*deps.Dependencies), len(*bom.Components))
	}
}

func TestBadLicensesAreRefused(t *testing.T) {
	find, err := newFinder(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	// The tests use it; the worker may not.
	if _, err := find.licence("github.com/hashicorp/hcl/v2"); err == nil || !strings.Contains(err.Error(), "the licence MPL-2.0 is none of") {
		t.Errorf("got %v", err)
	}
	if _, err := find.licence("example.com/nowhere"); err == nil {
		t.Error("a module that is not here has a licence")
	}
	find.dirs["example.com/bare"] = t.TempDir()
	if err := os.WriteFile(filepath.Join(find.dirs["example.com/bare"], "LICENSE"), []byte("Do as you please.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := find.licence("example.com/bare"); err == nil || !strings.Contains(err.Error(), "no licence was recognized") {
		t.Errorf("got %v", err)
	}
	if err := run(t.Context(), &bytes.Buffer{}, "main.go", "", "../..", false); err == nil {
		t.Error("a file that is no Go binary has modules")
	}
}
