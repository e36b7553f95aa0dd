package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMistakesAreReported(t *testing.T) {
	const golang = "FROM golang:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef AS build\n"
	const runs = "USER 65532\nENTRYPOINT [\"/worker\"]\n"
	for _, test := range []struct {
		name, dockerfile, want string // want: part of the message; empty: no fault
	}{
		{"good", golang + "COPY go.mod *.sum ./\nFROM scratch\nCOPY --from=build /out/worker /worker\n" + runs, ""},
		{"unknown instruction", "FROM scratch\nCOPI a b\n", "unknown instruction: COPI"},
		{"BuildKit's rule", "FROM scratch as Build\n" + runs, "StageNameCasing"},
		{"source that is not there", "FROM scratch\nCOPY go.work ./\n" + runs, ":2: COPY go.work: no such file"},
		{"no user", "FROM scratch\nENTRYPOINT [\"/worker\"]\n", "runs as root"},
		{"root", "FROM scratch\nUSER 1\nUSER root:root\nENTRYPOINT [\"/worker\"]\n", "runs as root"},
		{"user of another stage", golang + runs + "FROM scratch\nENTRYPOINT [\"/worker\"]\n", "runs as root"},
		{"no entry point", "FROM scratch\nUSER 1\n", "needs an ENTRYPOINT"},
		{"entry point through a shell", "FROM scratch\nUSER 1\nENTRYPOINT /worker\n", "needs an ENTRYPOINT"},
		{"no digest", "FROM golang:1.26 AS build\nFROM scratch\n" + runs, ":1: the image golang:1.26 has no digest"},
		{"short digest", "FROM golang@sha256:0123 AS build\nFROM scratch\n" + runs, "has no digest"},
		{"copied from an image without digest", "FROM scratch\nCOPY --from=alpine /x /x\n" + runs, ":2: the image alpine has no digest"},
		{"copied from a stage by its number", golang + "FROM scratch\nCOPY --from=0 /x /x\n" + runs, ""},
		{"stage of a stage", golang + "FROM build AS more\nFROM scratch\nCOPY --from=more /x /x\n" + runs, ""},
		{"syntax without digest", "# syntax=docker/dockerfile:1\nFROM scratch\n" + runs, ":1: the image docker/dockerfile:1 has no digest"},
		{"empty", "", "file with no instructions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "Dockerfile")
			for name, content := range map[string]string{"Dockerfile": test.dockerfile, "go.mod": "", "go.sum": ""} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := check(path)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("unexpected fault: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want a fault that says %q", err, test.want)
			}
		})
	}
}
