package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// A test that cannot run here is skipped and noted, so that it is never taken for one that
// has passed.

// NotTested skips the test and writes why to the file that CI_SKIPPED names, which
// .ci/run prints at its end.
func NotTested(t *testing.T, why string) {
	t.Helper()
	if list := os.Getenv("CI_SKIPPED"); list != "" {
		file, err := os.OpenFile(list, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(file, "%s: %s\n", t.Name(), why)
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Skip("NOT TESTED: " + why)
}

// Needs skips the test in short mode, and where a program is not installed.
func Needs(t *testing.T, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs programs of their own")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			NotTested(t, fmt.Sprintf("%s is not installed here: %v", program, err))
		}
	}
}

var noNetwork = regexp.MustCompile(`ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|network`)

// NPM copies a directory with a package.json and installs what its lock file says,
// and returns the copy. It skips the test where node or npm is not installed or the
// packages cannot be reached.
func NPM(ctx context.Context, t *testing.T, dir string) string {
	t.Helper()
	Needs(t, "node", "npm")
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = copied
	if output, err := install.CombinedOutput(); err != nil {
		if noNetwork.Match(output) {
			t.Logf("%s", output)
			NotTested(t, "the packages cannot be reached from here")
		}
		t.Fatalf("npm ci: %v\n%s", err, output)
	}
	return copied
}
