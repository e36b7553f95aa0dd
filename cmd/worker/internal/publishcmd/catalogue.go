package publishcmd

import (
	"fmt"
	"os"

	"github.com/sourcegraph/telemetry-relay/internal/catalogue"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// listed judges events by a telemetry.yaml, as a worker does whose services list refers
// to it and rejects whatever it does not list.
type listed struct {
	*catalogue.Catalogue
	decoder *event.Decoder
}

func readCatalogue(file string) (*listed, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c, err := catalogue.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	services, err := c.Services()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &listed{c, event.NewDecoder(services, "")}, nil
}

func (l *listed) check(m event.Message) error {
	if err := l.CheckService(m.Attributes[event.AttrServiceID]); err != nil {
		return err
	}
	if _, rejection := l.decoder.Decode(m); rejection != nil {
		return rejection
	}
	return nil
}
