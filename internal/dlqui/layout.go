package dlqui

import (
	"slices"
	"sync"
	"time"
)

// layout makes the part that all pages of an admitted browser share.
type layout struct {
	about  About
	csrf   string
	reader *reader
	draft  *draft

	mu   sync.Mutex // guards link
	link *link      // to another page; nil: none
}

// link is an entry of the navigation.
type link struct{ Text, Address string }

// setLink puts a link to another page on this machine into the navigation.
func (l *layout) setLink(text, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = &link{text, address}
}

// page returns a page with the banner, and without a body.
func (l *layout) page(title, section string) *page {
	l.mu.Lock()
	other := l.link
	l.mu.Unlock()
	return &page{Title: title, Section: section, CSRF: l.csrf, Banner: bannerOf(l.about, l.reader.status(), l.draft.size(), other)}
}

// banner describes the queue that the pages show.
type banner struct {
	About     About
	Read      time.Time // zero: not yet
	ReadAgain bool      // a reading goes on
	Messages  int
	AtLeast   bool
	Said      []string
	// Match compares the services list of this process with that of the running worker.
	Match   services
	Running string // digest of the running worker's list; empty: not known
	Planned int    // faults in the plan
	Link    *link  // to another page
}

// services says whether two services lists are the same.
type services string

const (
	servicesMatch   services = "match"
	servicesDiffer  services = "differ"
	servicesUnknown services = "unknown"
)

// bannerOf describes the queue, the readings of it, and the draft with so many faults.
func bannerOf(about About, readings readerStatus, planned int, other *link) *banner {
	last := readings.last
	b := &banner{
		About: about, Read: last.ended, ReadAgain: readings.phase == goingOn, Messages: last.messages, Said: last.found.Said,
		Running: last.found.Running.ServicesDigest, Planned: planned, Link: other,
	}
	b.Match = compareServices(b.Running, about.ServicesDigest)
	if last.ended.IsZero() {
		return b
	}
	b.AtLeast = !last.found.Complete
	if readings.failure != nil {
		b.Said = append(slices.Clip(b.Said), "The queue could not be read again: "+readings.failure.Error())
	}
	return b
}

// compareServices compares the digest of the running worker's services list, empty if it is
// not known, with that of this process.
func compareServices(running, own string) services {
	switch running {
	case "":
		return servicesUnknown
	case own:
		return servicesMatch
	}
	return servicesDiffer
}
