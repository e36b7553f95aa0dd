// Package hook lets recordertest make recorders that publish nothing, without
// showing the way to everybody.
package hook

// Tap takes what would be published. Its functions are called in the goroutine
// that records.
type Tap struct {
	// Put is given the data and the attributes of each valid event. It must not
	// change the attributes. Its error is what Record returns.
	Put func(data []byte, attributes map[string]string) error
	// Refused is given the error of each event that was not taken.
	Refused func(err error)
	// Stripped is given the error of each event that was taken without its private
	// metadata.
	Stripped func(err error)
}

// New makes a *recorder.Recorder of a recorder.Service; package recorder sets it.
var New func(service any, tap Tap) (rec any, err error)
