//! Which column of a table is what.

use std::path::Path;

use genrec::data::{
    InteractionLog, Item, ReadOptions, ReadReport,
    readers::tabular::{self, Format, InteractionColumns, ItemColumns},
};
use support::{BoxError, waiting};

/// Names of columns.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns, where they have other names")]
pub(crate) struct Columns {
    /// Of the interactions.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Of the interactions: the item's id.
    #[arg(long)]
    pub(crate) item: Option<String>,
    /// Of the interactions: a number, or a date.
    #[arg(long)]
    pub(crate) time: Option<String>,
    /// Of the interactions.
    #[arg(long)]
    pub(crate) rating: Option<String>,
    /// Of the items: the id.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Of the items.
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// Of the items.
    #[arg(long)]
    pub(crate) brand: Option<String>,
    /// Of the items.
    #[arg(long)]
    pub(crate) price: Option<String>,
    /// Of the items: a path with `>` between levels, several with `|` between.
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// Of the items.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Of the items: further ones to keep, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(crate) attributes: Vec<String>,
}

/// What columns are usually called.
const USER: &[&str] = &["user", "user_id", "userid", "customer", "customer_id", "buyer", "buyer_id", "reviewerid"];
const ITEM: &[&str] = &["item", "item_id", "itemid", "product", "product_id", "sku", "asin", "parent_asin"];
const TIME: &[&str] = &[
    "timestamp",
    "time",
    "date",
    "datetime",
    "created_at",
    "ordered_at",
    "bought_at",
    "purchased_at",
    "unixreviewtime",
];
const RATING: &[&str] = &["rating", "stars", "overall"];
const ID: &[&str] = &["id", "item", "item_id", "itemid", "product", "product_id", "sku", "asin", "parent_asin"];
const TITLE: &[&str] = &["title", "name"];
const BRAND: &[&str] = &["brand", "maker", "author"];
const PRICE: &[&str] = &["price"];
const CATEGORY: &[&str] = &["category", "categories", "genre", "genres"];
const DESCRIPTION: &[&str] = &["description"];

/// A table, and where in it what is.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    format: Format,
    columns: Vec<String>,
    options: ReadOptions,
    /// What was found where, for people to see.
    pub(crate) found: Vec<String>,
}

impl<'a> Source<'a> {
    pub(crate) fn open(path: &'a Path, options: &ReadOptions) -> Result<Self, BoxError> {
        let format = Format::from_path(path).ok_or_else(|| {
            let endings = "`.csv`, `.tsv`, `.jsonl`, each also with `.gz`";
            let parquet =
                if cfg!(feature = "parquet") { ", or `.parquet`" } else { "; `.parquet` needs `--features parquet`" };
            format!("`{}` does not end in {endings}{parquet}: rename it, or convert it", path.display())
        })?;
        let columns = tabular::columns(path, format, options)?;
        Ok(Self { path, format, columns, options: options.clone(), found: Vec::new() })
    }

    /// The column that was named, or the first of the usual names that is there.
    fn column(&mut self, what: &str, named: Option<&String>, usual: &[&str]) -> Option<String> {
        let there = |name: &&str| self.columns.iter().find(|column| column.eq_ignore_ascii_case(name)).cloned();
        let column = named.cloned().or_else(|| usual.iter().find_map(there))?;
        self.found.push(if column == what { column.clone() } else { format!("{what} = {column}") });
        Some(column)
    }

    /// The columns that are used for nothing.
    pub(crate) fn others(&self) -> Vec<&str> {
        let used =
            |column: &str| self.found.iter().any(|found| found == column || found.ends_with(&format!(" = {column}")));
        self.columns.iter().map(String::as_str).filter(|column| !used(column)).collect()
    }

    /// Whether there is such a column.
    pub(crate) fn has(&self, what: &str) -> bool {
        self.found.iter().any(|found| found == what || found.starts_with(&format!("{what} = ")))
    }

    /// One that has to be there.
    fn needed(&mut self, what: &str, named: Option<&String>, usual: &[&str]) -> Result<String, BoxError> {
        self.column(what, named, usual).ok_or_else(|| {
            let (path, columns) = (self.path.display(), self.columns.join(", "));
            format!("`{path}` has no column that is called as {what}s usually are; name it with `--{what}`: {columns}")
                .into()
        })
    }
}

pub(crate) fn read_log(source: &mut Source<'_>, args: &Columns) -> Result<(InteractionLog, ReadReport), BoxError> {
    let (user, item) =
        (source.needed("user", args.user.as_ref(), USER)?, source.needed("item", args.item.as_ref(), ITEM)?);
    let mut columns = InteractionColumns::new(user, item);
    columns.timestamp = source.column("time", args.time.as_ref(), TIME);
    columns.rating = source.column("rating", args.rating.as_ref(), RATING);
    let read = || tabular::read_interactions(source.path, source.format, &columns, &source.options);
    Ok(waiting("read", &source.path.display().to_string(), read)?)
}

pub(crate) fn read_items(source: &mut Source<'_>, args: &Columns) -> Result<(Vec<Item>, ReadReport), BoxError> {
    let mut columns = ItemColumns::new(source.needed("id", args.id.as_ref(), ID)?);
    columns.title = source.column("title", args.title.as_ref(), TITLE);
    columns.brand = source.column("brand", args.brand.as_ref(), BRAND);
    columns.price = source.column("price", args.price.as_ref(), PRICE);
    columns.categories = source.column("category", args.category.as_ref(), CATEGORY);
    columns.description = source.column("description", args.description.as_ref(), DESCRIPTION);
    columns.attributes.clone_from(&args.attributes);
    source.found.extend(args.attributes.iter().cloned());
    let read = || tabular::read_items(source.path, source.format, &columns, &source.options);
    Ok(waiting("read", &source.path.display().to_string(), read)?)
}
