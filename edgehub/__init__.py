"""The edge's end of the link: joining, dialling, taking changes down and reports up."""
