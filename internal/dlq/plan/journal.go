package plan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// JournalOf returns the path of a plan's journal, which is beside the plan.
func JournalOf(plan string) string { return plan + ".journal" }

// BackupOf returns the path of the backup of the messages that a plan removes.
func BackupOf(plan string) string { return plan + ".backup" }

// ErrBusy means that another process has the journal open.
var ErrBusy = errors.New("another process is at this plan")

// Journal is the file that records the actions of a plan. At most one process has it open,
// and the end of that process unlocks it. A Journal is not safe for concurrent use.
type Journal struct {
	// State is what the records say.
	State *State

	file *os.File
	// failed is the first error of Append. No record may follow one that was written in
	// part, because the journal could not be read past it.
	failed error
}

// OpenJournal opens the journal of a plan, or creates one that only the user may read.
// It cuts off a record that a crash has left incomplete.
func OpenJournal(path string, p *Plan) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	j := &Journal{State: NewState(p), file: file}
	if err := j.start(path); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

func (j *Journal) start(path string) error {
	if err := lock(j.file); err != nil {
		return err
	}
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return syncFolder(path)
	}
	complete, err := readRecords(io.LimitReader(j.file, MaxBytes), j.State.Add)
	if err != nil {
		return err
	}
	if complete < info.Size() {
		if err := j.file.Truncate(complete); err != nil {
			return fmt.Errorf("cut off an incomplete record: %w", err)
		}
	}
	return nil
}

// ReadJournal returns the state of a plan without changing the journal, also while
// another process writes it. A plan without a journal was not begun.
func ReadJournal(path string, p *Plan) (*State, error) {
	s := NewState(p)
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	if _, err := readRecords(io.LimitReader(file, MaxBytes), s.Add); err != nil {
		return nil, err
	}
	return s, nil
}

// Append writes records, and returns when they are on disk. It sets the time of records
// that have none. After an error, every further call returns the same error.
func (j *Journal) Append(records ...Record) error {
	if j.failed == nil {
		j.failed = j.append(records)
	}
	return j.failed
}

func (j *Journal) append(records []Record) error {
	var text []byte
	for i := range records {
		if records[i].At.IsZero() {
			records[i].At = time.Now().UTC()
		}
		var err error
		if text, err = appendRecord(text, records[i]); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(text); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	for _, r := range records {
		if err := j.State.Add(r); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the journal.
func (j *Journal) Close() error { return j.file.Close() }

// syncFolder makes a new file last: without it a crash of the machine may lose its name.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
