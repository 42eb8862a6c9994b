package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration, or have it read again",
		Long: `Settings come from the defaults, the file config.yaml in the home, GOTONG_*
variables and flags, each overriding the one before.`,
		Example: "  gotong config show",
		Args:    exactArgs(0),
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.configReloadCommand(), &cobra.Command{
		Use:     "show",
		Short:   "Print every setting in force and where it came from",
		Example: "  gotong config show\n  GOTONG_GIVE=1TB gotong config show --json",
		Args:    exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			loaded, err := a.loadConfig(c)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					Home   string         `json:"home"`
					Values []config.Value `json:"values"`
				}{a.home, loaded.Values})
			}
			return a.table("KEY\tVALUE\tORIGIN", func(w io.Writer) {
				for _, v := range loaded.Values {
					fmt.Fprintf(w, "%s\t%s\t%s\n", v.Key, printable(v.Value), printable(v.Origin))
				}
			})
		},
	})
	return c
}
