package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
)

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "do it without asking; needed where nobody can be asked"}
}

// ask asks a question on the terminal, and reports whether the answer was yes.
func (env environment) ask(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(env.stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(env.stdin).ReadString('\n') // no answer is a no
		answer <- strings.ToLower(strings.TrimSpace(text))
	}()
	select {
	case text := <-answer:
		if text == "y" || text == "yes" {
			return true, nil
		}
		fmt.Fprintln(env.stderr, "Nothing was changed.")
		return false, nil
	case <-ctx.Done():
		fmt.Fprintln(env.stderr)
		return false, ctx.Err()
	}
}
