package limit

import (
	"math"
	"math/bits"
	"time"
)

const (
	// fewest streams tell a trend, whatever the limit is.
	fewest = 16
	// A window lasts until each stream that may be in flight has ended once, within
	// these bounds.
	shortest, longest = 100 * time.Millisecond, 5 * time.Second
	// forget is the time constant with which the best latencies follow those that are
	// measured with few streams in flight: a gateway that has become slower for good
	// counts as healthy again after about this time.
	forget = time.Minute
	// classes of payload sizes: two for each power of two, up to 2^16 units.
	classes = 2*16 + 2
	// bytesPerUnit is above what events have on average. So payloads are compared by
	// number of events, unless their events are large.
	bytesPerUnit = 4096
)

// class is the class of a payload's size: sizes of one differ by less than a half.
func class(events, bytes int) int {
	units := uint(max(events, bytes/bytesPerUnit, 1))
	n := bits.Len(units)
	half := 0
	if n > 1 {
		half = int(units>>(n-2)) & 1
	}
	return min(2*n+half, classes-1)
}

// tally is the streams of one class.
type tally struct {
	n   int
	sum float64 // of latencies, in seconds
}

// window has the observations since a time.
type window struct {
	since  time.Time
	n      int
	demand int // streams that ended while enough events waited
	failed int
	peak   int // streams in flight, at most
	by     [classes]tally
}

func (w *window) add(e End, demand bool, now time.Time) {
	if w.since.IsZero() {
		w.since = now
	}
	w.n++
	if demand {
		w.demand++
	}
	t := &w.by[class(e.Events, e.Bytes)]
	t.n++
	t.sum += e.Latency.Seconds()
}

// demanded reports whether events waited for at least half of the streams.
func (w *window) demanded() bool { return 2*w.demand >= w.n }

// over reports whether each stream that may be in flight has ended once, or whether
// that takes too long.
func (w *window) over(limit int, now time.Time) bool {
	took := now.Sub(w.since)
	return w.n >= fewest && took >= shortest && (w.n >= limit || took >= longest)
}

// seconds that the streams took together.
func (w *window) seconds() float64 {
	sum := 0.0
	for _, t := range w.by {
		sum += t.sum
	}
	return sum
}

// ratio is the latency divided by the best one of payloads of the same sizes; 1 if
// none of these sizes is known.
func (w *window) ratio(b *best) float64 {
	took, expected := 0.0, 0.0
	for c, t := range w.by {
		if t.n > 0 && b.seconds[c] > 0 {
			took += t.sum
			expected += float64(t.n) * b.seconds[c]
		}
	}
	if expected == 0 {
		return 1
	}
	return took / expected
}

// best is the latency of each class with few streams in flight.
type best struct {
	seconds [classes]float64 // 0: not known
	learned time.Time
	// recent is the mean latency of the last window.
	recent time.Duration
}

// learn takes the latencies of a window. best follows those that were measured with few
// streams. Other classes follow in proportion.
func (b *best) learn(w *window, ratio float64, few bool, now time.Time) {
	b.recent = time.Duration(w.seconds() / float64(w.n) * float64(time.Second))
	share := 0.0
	if few {
		share = 1 - math.Exp(-now.Sub(b.learned).Seconds()/forget.Seconds())
		b.learned = now
	}
	known := b.seconds
	for c, t := range w.by {
		mean := t.sum / float64(max(1, t.n))
		switch {
		case known[c] == 0 && t.n > 0:
			b.seconds[c] = b.plausible(c, mean/max(1, ratio), &known)
		case t.n > 0:
			b.seconds[c] += share * (mean - b.seconds[c])
		default:
			b.seconds[c] *= 1 + share*(ratio-1)
		}
	}
}

// plausible bounds the first latency of a class by those of its neighbours, since it
// may have been measured with many streams in flight: a larger payload takes at least
// as long as a smaller one, and at most as much longer as it is larger.
func (b *best) plausible(c int, seconds float64, known *[classes]float64) float64 {
	for smaller := c - 1; smaller >= 0; smaller-- {
		if k := known[smaller]; k > 0 {
			seconds = min(max(seconds, k), k*larger(c-smaller))
			break
		}
	}
	for greater := c + 1; greater < classes; greater++ {
		if k := known[greater]; k > 0 {
			seconds = max(min(seconds, k), k/larger(greater-c))
			break
		}
	}
	return seconds
}

// larger is how many times as large a payload may be that is so many classes above:
// one more than that, since both classes have a width.
func larger(classes int) float64 { return math.Exp2(float64(classes+1) / 2) }
