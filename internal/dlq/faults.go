package dlq

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// FaultHours is how many hours of rejections a FaultCount has.
const FaultHours = 24

// The limits of the names that are kept. Publishers choose the names, so that a faulty
// publisher could send any number of them.
const (
	maxReleases     = 50
	maxFeatures     = 1000
	maxEnvironments = 20
	maxServices     = 1000
)

// otherFault stands for the faults of a reason beyond maxGroups.
const otherFault = "(others)"

// FaultCount is a fault with its counts.
type FaultCount struct {
	// ID is that of the fault; empty for the faults that are counted together.
	ID      string `json:"id"`
	Reason  string `json:"reason"`
	Service string `json:"service"`
	// Detail is normalized: see fault.Normalize.
	Detail string `json:"detail"`
	Count  int    `json:"count"`
	// CameBack is how many of the messages were replayed before and rejected again.
	CameBack int `json:"came_back"`
	// First is the time of the first rejection, before all replays; Last is that of the
	// last.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Hours are the rejections per hour, the last FaultHours ones before the reading
	// began; the newest is last. They count only messages that are in the queue.
	Hours []int `json:"rejections_per_hour"`
	Trend Trend `json:"trend"`
	// Releases are the service's versions with the fault, the most frequent first.
	// Other are versions of the service that the queue has for other faults only.
	Releases []ReleaseCount `json:"releases"`
	Other    []string       `json:"other_releases,omitempty"`
	// Environments are those of the events.
	Environments []string `json:"environments"`
	// Features counts the pairs of feature and action; Feature and Action are the pair
	// if it is one.
	Features int    `json:"features"`
	Feature  string `json:"feature,omitempty"`
	Action   string `json:"action,omitempty"`
	// Sample is an id of the newest message, as show takes it.
	Sample string `json:"sample"`
	// Owner and Runbook belong to the service. The caller sets them.
	Owner   string `json:"owner,omitempty"`
	Runbook string `json:"runbook,omitempty"`

	sampled      time.Time // the rejection of the sample
	releases     map[string]int
	environments map[string]struct{}
	features     map[[2]string]struct{}
}

// ReleaseCount is how many messages a release of a service has.
type ReleaseCount struct {
	Version string `json:"version"`
	Count   int    `json:"count"`
}

// Faults counts messages by fault. It keeps one id of each fault and no message.
type Faults struct {
	// Now is the time at which the hours end.
	Now time.Time

	faults   map[fault.Fault]*FaultCount
	versions map[string]map[string]struct{} // of each service
}

// Add counts a message.
func (f *Faults) Add(s *Stored) {
	if f.faults == nil {
		f.faults, f.versions = map[fault.Fault]*FaultCount{}, map[string]map[string]struct{}{}
	}
	key := FaultOf(s)
	c := f.faults[key]
	if c == nil && len(f.faults) >= maxGroups {
		key = fault.Fault{Reason: key.Reason, Detail: otherFault}
		c = f.faults[key]
	}
	if c == nil {
		c = &FaultCount{
			Reason: key.Reason, Service: key.Service, Detail: key.Detail, Hours: make([]int, FaultHours),
			releases: map[string]int{}, environments: map[string]struct{}{}, features: map[[2]string]struct{}{},
		}
		if key.Detail != otherFault {
			c.ID = key.ID()
		}
		f.faults[key] = c
	}
	// The newest message is the sample, so that the sample does not depend on the order
	// in which Pub/Sub gives the messages.
	if id := SampleID(s); c.Count == 0 || s.RejectedAt.After(c.sampled) || s.RejectedAt.Equal(c.sampled) && id < c.Sample {
		c.Sample, c.sampled = id, s.RejectedAt
	}
	c.Count++
	if s.Replays > 0 {
		c.CameBack++
	}
	widen(&c.First, &c.Last, s.FirstRejectedAt)
	widen(&c.First, &c.Last, s.RejectedAt)
	// A time in the future comes from a wrong clock. It counts as now.
	if ago := max(0, f.Now.Sub(s.RejectedAt)); ago < FaultHours*time.Hour {
		c.Hours[FaultHours-1-int(ago/time.Hour)]++
	}
	feature, action := SafeName(s)
	put(c.features, [2]string{feature, action}, maxFeatures)
	put(c.environments, Word(s.Environment), maxEnvironments)
	if version := Word(s.Original.Attributes[event.AttrServiceVersion]); version != "" {
		if _, ok := c.releases[version]; ok || len(c.releases) < maxReleases {
			c.releases[version]++
		}
		if f.versions[key.Service] == nil && len(f.versions) < maxServices {
			f.versions[key.Service] = map[string]struct{}{}
		}
		put(f.versions[key.Service], version, maxReleases)
	}
}

// put adds a key to a set that has fewer than limit.
func put[K comparable](set map[K]struct{}, key K, limit int) {
	if set != nil && len(set) < limit {
		set[key] = struct{}{}
	}
}

// Counts returns the faults, the largest first.
func (f *Faults) Counts() []*FaultCount {
	for key, c := range f.faults {
		c.Trend = TrendOf(c.Hours)
		c.Environments = slices.Sorted(maps.Keys(c.environments))
		c.Features = len(c.features)
		for pair := range c.features {
			c.Feature, c.Action = pair[0], pair[1]
		}
		if c.Features != 1 {
			c.Feature, c.Action = "", ""
		}
		c.Releases = []ReleaseCount{}
		for version, n := range c.releases {
			c.Releases = append(c.Releases, ReleaseCount{version, n})
		}
		slices.SortFunc(c.Releases, func(a, b ReleaseCount) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Version, b.Version))
		})
		c.Other = nil
		for _, version := range slices.Sorted(maps.Keys(f.versions[key.Service])) {
			if c.releases[version] == 0 && len(c.releases) > 0 {
				c.Other = append(c.Other, version)
			}
		}
	}
	return slices.SortedFunc(maps.Values(f.faults), func(a, b *FaultCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Detail, b.Detail))
	})
}

// SampleID returns an id of a message as show takes it. It is a word, because people
// paste it into a shell.
func SampleID(s *Stored) string {
	if id := SafeID(s.EventID); id != "" {
		return id
	}
	if id := s.OriginalID; word.is(id) {
		return id
	}
	return Word(s.ID)
}
