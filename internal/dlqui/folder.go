package dlqui

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// planFolder is the folder of the plans and of the files beside them.
type planFolder string

// path returns the path of the plan of an operation.
func (f planFolder) path(operation string) string {
	return filepath.Join(string(f), operation+".json")
}

// names returns the names of the operations, the newest first, at most so many.
func (f planFolder) names(most int) ([]string, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range slices.Backward(entries) { // by name, so by time
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && operationName.MatchString(name) && len(all) < most {
			all = append(all, name)
		}
	}
	return all, nil
}

// newName returns the name of an operation, which sorts by time.
func newName() string {
	return time.Now().UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:6])
}

// operationName matches the names of operations. Nothing else may become part of a path.
var operationName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[a-z2-7]{6}$`)

// fixesOf returns the path of the file from which a plan is made.
func fixesOf(plan string) string { return strings.TrimSuffix(plan, ".json") + ".fixes.yaml" }

// writeFile writes a new file that only the user may read.
func writeFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
