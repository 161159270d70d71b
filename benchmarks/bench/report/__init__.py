"""Tables and plots of rows measured earlier: `dubstream bench report`, and the README's."""
