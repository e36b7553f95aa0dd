package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const runs = "USER 65532\nENTRYPOINT [\"/worker\"]\n"
	for _, test := range []struct {
		name, dockerfile, want string // want: part of the message; empty: no fault
	}{
		{"good", "FROM golang AS build\nCOPY go.mod *.sum ./\nFROM scratch\nCOPY --from=build /out/worker /worker\n" + runs, ""},
		{"unknown instruction", "FROM scratch\nCOPI a b\n", "unknown instruction: COPI"},
		{"BuildKit's rule", "FROM scratch as Build\n" + runs, "StageNameCasing"},
		{"source that is not there", "FROM scratch\nCOPY go.work ./\n" + runs, ":2: COPY go.work: no such file"},
		{"no user", "FROM scratch\nENTRYPOINT [\"/worker\"]\n", "runs as root"},
		{"root", "FROM scratch\nUSER 1\nUSER root:root\nENTRYPOINT [\"/worker\"]\n", "runs as root"},
		{"user of another stage", "FROM golang AS build\n" + runs + "FROM scratch\nENTRYPOINT [\"/worker\"]\n", "runs as root"},
		{"no entry point", "FROM scratch\nUSER 1\n", "needs an ENTRYPOINT"},
		{"entry point through a shell", "FROM scratch\nUSER 1\nENTRYPOINT /worker\n", "needs an ENTRYPOINT"},
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
