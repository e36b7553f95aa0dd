package dlqui

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// number reads a number of at least 0 from a field of a form. It returns otherwise for an
// empty field, and accepts separators between digits.
func number(form url.Values, name string, otherwise int) (int, error) {
	text := strings.TrimSpace(form.Get(name))
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(strings.NewReplacer(",", "", " ", "", "_", "").Replace(text))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: expected a number of at least 0, got %q", name, text)
	}
	return n, nil
}

// confirmed returns an error unless the person has typed the number of messages.
func confirmed(form url.Values, messages int) error {
	n, err := number(form, "count", -1)
	switch {
	case err != nil:
		return err
	case n == -1:
		return fmt.Errorf("expected the number of messages, %d, to be typed", messages)
	case n != messages:
		return fmt.Errorf("the number typed is %d, and it is %d messages", n, messages)
	}
	return nil
}

// The defaults of `dlq apply`. The page shows them, and a command line omits them.
const (
	defaultCanaries  = 5
	defaultStopAfter = 10
)

// applyArgs returns the flags of `dlq apply` from a form. Its error names every wrong field.
func applyArgs(form url.Values) ([]string, error) {
	var args []string
	var errs []error
	for _, flag := range []struct {
		name      string
		otherwise int
	}{{"canary", defaultCanaries}, {"rate", 0}, {"stop-after", defaultStopAfter}} {
		n, err := number(form, flag.name, flag.otherwise)
		errs = append(errs, err)
		if n != flag.otherwise {
			args = append(args, "--"+flag.name, strconv.Itoa(n))
		}
	}
	if text := strings.TrimSpace(form.Get("canary-wait")); text != "" {
		if d, err := time.ParseDuration(text); err != nil || d <= 0 {
			errs = append(errs, fmt.Errorf("canary-wait: expected a duration such as 20m, got %q", text))
		}
		args = append(args, "--canary-wait", text)
	}
	if form.Get("services-anyway") != "" {
		args = append(args, "--services-anyway")
	}
	return args, errors.Join(errs...)
}
