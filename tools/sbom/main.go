// Command sbom writes a CycloneDX bill of materials of a Go binary: every module
// that the linker has put into it, by the binary's own account, with its checksum
// and its licence. It fails when a licence is not one that the project may ship.
// The same binary gives the same bytes.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	list := flag.Bool("licenses", false, "print a line for each module and its licence instead")
	version := flag.String("version", "", "the version that the binary was built as; a binary built with -trimpath does not tell")
	root := flag.String("module", "..", "the directory of the module that the binary was built from, for the licences")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: go -C tools run ./sbom [-licenses] [-version VERSION] BINARY   (relative to tools)")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout, flag.Arg(0), *version, *root, *list); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, binary, version, root string, list bool) error {
	b, err := read(binary)
	if err != nil {
		return err
	}
	b.version = cmp.Or(version, b.version)
	find, err := newFinder(ctx, root)
	if err != nil {
		return err
	}
	var faults []error
	for i := range b.modules {
		m := &b.modules[i]
		if m.licence, err = find.licence(m.path); err != nil {
			faults = append(faults, err)
		}
	}
	if list {
		for _, m := range b.modules {
			fmt.Fprintf(w, "%s %s %s\n", m.path, m.version, m.licence)
		}
		return errors.Join(faults...)
	}
	encoder := cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true)
	return errors.Join(append(faults, encoder.EncodeVersion(b.bom(), cdx.SpecVersion1_5))...)
}
