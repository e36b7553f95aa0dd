// Package hook lets recordertest make recorders that publish nothing, without offering that
// to everybody.
package hook

// Tap takes the events that would be published. Its functions are called in the goroutine
// that records.
type Tap struct {
	// Put gets the data and the attributes of each valid event. It must not change the
	// attributes. Record returns its error.
	Put func(data []byte, attributes map[string]string) error
	// Refused gets the error of each event that was not taken.
	Refused func(err error)
	// Stripped gets the error of each event that was taken without its private metadata.
	Stripped func(err error)
}

// New makes a *recorder.Recorder of a recorder.Service; package recorder sets it.
var New func(service any, tap Tap) (rec any, err error)
