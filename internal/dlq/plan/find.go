package plan

import (
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

// Found is what the journal of a plan says of one event.
type Found struct {
	// By is the account that has applied the plan first, at the time Begun.
	By    string
	Begun time.Time
	// Published and Purged are the times of these actions on the event's message; zero if
	// there was none.
	Published, Purged time.Time
	// Receipts are those of the event.
	Receipts []Receipt
}

// Find looks in the journal of a plan for an event, by ids of the event and of its
// messages. It returns nil if the plan has not acted on the event, or was not begun.
func Find(path string, p *Plan, ids []string) (*Found, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	// The plan has no event ids. A receipt maps an event id to the id of the event's first
	// message, which the plan has. Receipts come after the actions in the journal, so that
	// finding the actions takes a second reading.
	known := slices.Clone(ids)
	if err := eachRecord(file, func(r Record) {
		for _, receipt := range r.Receipts {
			if receipt.Event != "" && slices.Contains(ids, receipt.Event) {
				known = append(known, receipt.Origin)
			}
		}
	}); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for _, group := range p.Groups {
		for message, origin := range group.Messages {
			if slices.Contains(known, message) || slices.Contains(known, origin) {
				known = append(known, message, origin)
			}
		}
	}
	var f Found
	err = eachRecord(file, func(r Record) { f.add(r, p.ID, known) })
	if err != nil || f.Published.IsZero() && f.Purged.IsZero() && len(f.Receipts) == 0 {
		return nil, err
	}
	return &f, nil
}

func (f *Found) add(r Record, plan string, known []string) {
	about := slices.ContainsFunc(r.IDs, func(id string) bool { return slices.Contains(known, id) })
	switch {
	case r.Kind == Begun && f.Begun.IsZero() && r.Plan == plan:
		f.By, f.Begun = r.By, r.At
	case r.Kind == Published && about:
		f.Published = r.At
	case r.Kind == Purged && about:
		f.Purged = r.At
	case r.Kind == Receipted:
		for _, receipt := range r.Receipts {
			if slices.Contains(known, receipt.Origin) {
				f.Receipts = append(f.Receipts, receipt)
			}
		}
	}
}

func eachRecord(file *os.File, use func(Record)) error {
	_, err := readRecords(io.LimitReader(file, MaxBytes), func(r Record) error { use(r); return nil })
	return err
}
