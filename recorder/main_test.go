package recorder

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// forever is a goroutine that a library of the Pub/Sub client's starts once.
var forever = goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start")

func TestMain(m *testing.M) {
	flag.Parse()
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = checks.Value.Set("3000") // a number
	}
	goleak.VerifyTestMain(m, forever)
}
