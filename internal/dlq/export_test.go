package dlq

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestExporterRemovesOnlyWhatIsOnDisk makes writing and syncing fail.
func TestExporterRemovesOnlyWhatIsOnDisk(t *testing.T) {
	full := errors.New("the disk is full")
	var removed []string
	remove := func(_ context.Context, ids []string) error { removed = append(removed, ids...); return nil }
	report := func(*Stored, error) {}
	for name, e := range map[string]*Exporter{
		"write": {Out: writerFunc(func([]byte) (int, error) { return 0, full }), Remove: remove, Report: report},
		"sync":  {Out: new(strings.Builder), Sync: func() error { return full }, Remove: remove, Report: report},
	} {
		err := e.Add(asStored(t, deadLetter("{}", nil)))
		if err == nil {
			err = e.Flush(t.Context())
		}
		if !errors.Is(err, full) || removed != nil || e.Done != 0 {
			t.Errorf("%s: %v, removed %v, done %d", name, err, removed, e.Done)
		}
	}
	unavailable := errors.New("unavailable")
	e := &Exporter{Out: new(strings.Builder), Report: report, Remove: func(context.Context, []string) error { return unavailable }}
	if err := errors.Join(e.Add(asStored(t, deadLetter("{}", nil))), e.Flush(t.Context())); !errors.Is(err, unavailable) || e.Failed != 1 || e.Done != 0 {
		t.Errorf("%v %+v", err, e)
	}
}

// TestExporterSyncsBeforeItRemoves records the order of the steps.
func TestExporterSyncsBeforeItRemoves(t *testing.T) {
	var steps []string
	out := bufio.NewWriter(writerFunc(func(p []byte) (int, error) { steps = append(steps, "write"); return len(p), nil }))
	e := &Exporter{
		Out:    out,
		Sync:   func() error { err := out.Flush(); steps = append(steps, "sync"); return err },
		Remove: func(context.Context, []string) error { steps = append(steps, "remove"); return nil },
		Report: func(*Stored, error) {},
	}
	err := errors.Join(e.Add(asStored(t, deadLetter("{}", nil))), e.Flush(t.Context()), e.Flush(t.Context()))
	if err != nil || !slices.Equal(steps, []string{"write", "sync", "remove"}) || e.Done != 1 {
		t.Errorf("%v %v", steps, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
