package main

import "github.com/urfave/cli/v3"

func (env environment) localCommand() *cli.Command { return &cli.Command{Name: "local"} }
