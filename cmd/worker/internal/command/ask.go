package command

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

// YesFlag returns the flag that agrees to a change in advance.
func YesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "do it without asking; required without a terminal"}
}

// Ask asks a question on the terminal, and reports whether the answer was yes.
func (env Env) Ask(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(env.Stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(env.Stdin).ReadString('\n') // no answer is a no
		answer <- strings.ToLower(strings.TrimSpace(text))
	}()
	select {
	case text := <-answer:
		if text == "y" || text == "yes" {
			return true, nil
		}
		fmt.Fprintln(env.Stderr, "Nothing was changed.")
		return false, nil
	case <-ctx.Done():
		fmt.Fprintln(env.Stderr)
		return false, ctx.Err()
	}
}
