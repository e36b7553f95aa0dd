package recordertest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sourcegraph/telemetry-relay/recorder"
	"github.com/sourcegraph/telemetry-relay/recorder/recordertest"
)

const (
	featureHover = "cody.hover"
	actionShown  = "shown"
)

// hovers is a part of a service.
type hovers struct{ recorder *recorder.Recorder }

func (h hovers) show(ctx context.Context, tier int) {
	h.recorder.RecordBestEffort(ctx, featureHover, actionShown, recorder.Metadata{"tier": recorder.Number(tier)})
}

// A service's own test looks like this.
func Example() {
	t := new(testing.T) // a test is given it: func TestHover(t *testing.T) { … }

	rec := recordertest.New(t)
	hovers{rec.Recorder}.show(context.Background(), 1)

	recordertest.CheckNames(t, recorder.Feature(featureHover), recorder.Action(actionShown))
	rec.AssertOnce(featureHover, actionShown, recorder.Metadata{"tier": 1})
	rec.AssertNever(featureHover, actionShown, recorder.Metadata{"tier": 2})

	fmt.Println("failed:", t.Failed())
	fmt.Println(rec.Events()[0].Feature, rec.Events()[0].Metadata)
	// Output:
	// failed: false
	// cody.hover map[tier:1]
}
