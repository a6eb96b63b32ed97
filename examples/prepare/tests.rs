#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use genrec::data::readers::neutral as reader;

use super::*;

struct Shop(tempfile::TempDir);

impl Shop {
    fn new(interactions: &str, items: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("orders.csv"), interactions).unwrap();
        fs::write(dir.path().join("items.csv"), items).unwrap();
        Self(dir)
    }

    fn args(&self, more: &[&str]) -> Args {
        let path = |name: &str| self.0.path().join(name).to_string_lossy().into_owned();
        let typed = ["--interactions", &path("orders.csv"), "--items", &path("items.csv"), "--out", &path("out")];
        let core = ["--user-core", "1", "--item-core", "1"];
        Args::try_parse_from(["prepare"].iter().chain(&typed).chain(&core).chain(more)).unwrap()
    }

    fn prepare(&self, more: &[&str]) -> Result<Dataset, String> {
        run(&self.args(more)).map_err(|error| error.to_string())?;
        Ok(reader::read(&self.0.path().join("out"), &ReadOptions::default()).unwrap().0)
    }

    fn count(&self, name: &str) -> u64 {
        let text = fs::read(self.0.path().join("out/prepare.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()[name].as_u64().unwrap()
    }
}

const ITEMS_CSV: &str =
    "id,title,category,price\na,Soap & Co,Care > Soap,3.5\nb,\"Brush, soft\",Care,\nc,Comb,,\nd,Rose,,\na,Again,,\n";

#[test]
fn tables_become_what_the_other_programs_read() {
    let orders = "user,item,timestamp,rating\nada,b,2024-01-02,5\nada,a,2024-01-01,4\nbo,c,2024-01-01,1\nbo,b,2024-01-01,5\nada,b,2024-01-03,5\n";
    let shop = Shop::new(orders, ITEMS_CSV);
    let dataset = shop.prepare(&["--min-rating", "2"]).unwrap();
    let sequences: Vec<(&str, Vec<&str>)> = dataset
        .sequences
        .iter()
        .map(|(user, items)| {
            (user, items.iter().map(|&item| dataset.catalogue.get(item).unwrap().id.as_str()).collect())
        })
        .collect();
    assert_eq!(sequences, [("ada", vec!["a", "b"]), ("bo", vec!["b"])]);
    let soap = dataset.catalogue.get(dataset.catalogue.find("a").unwrap()).unwrap();
    assert_eq!(soap, &Item::new("a").with_title("Soap & Co").with_price(3.5).with_categories([["Care", "Soap"]]));
    for (name, count) in [
        ("interactions_read", 5),
        ("below_min_rating", 1),
        ("repeated", 1),
        ("outside_core", 0),
        ("interactions", 3),
        ("users", 2),
        ("items", 2),
        ("item_rows_repeated", 1),
        ("at_the_same_time", 0),
    ] {
        assert_eq!(shop.count(name), count, "{name}");
    }
    // What is there is of this program and may be replaced.
    let all = shop.prepare(&["--all-items", "--repeats", "all"]).unwrap();
    assert_eq!((all.catalogue.len(), all.sequences.interactions()), (4, 5));
}

#[test]
fn what_cannot_be_used_is_said_with_what_to_do() {
    let wrong = |orders: &str, items: &str, more: &[&str]| Shop::new(orders, items).prepare(more).unwrap_err();
    let good = "user,item\nada,a\n";
    assert!(wrong("shopper,item\nada,a\n", ITEMS_CSV, &[]).contains("name it with `--user`: shopper, item"));
    assert!(wrong(good, ITEMS_CSV, &["--time", "when"]).contains("no column `when`; it has user, item"));
    assert!(wrong("user,item,time\nada,a,yesterday\n", ITEMS_CSV, &[]).contains("orders.csv:2:7: expected a time"));
    assert!(wrong("user,item\nada lo,a\n", ITEMS_CSV, &[]).contains("user id `ada lo` has white space"));
    let few = Shop::new(good, ITEMS_CSV);
    let few = run(&Args { user_core: 9, ..few.args(&[]) }).unwrap_err().to_string();
    assert!(few.contains("no interaction is left"), "{few}");
    let sheet = Source::open(Path::new("x.xlsx"), &ReadOptions::default()).err().unwrap().to_string();
    assert!(sheet.contains("does not end in `.csv`"), "{sheet}");
    let shop = Shop::new(good, ITEMS_CSV);
    fs::create_dir(shop.0.path().join("out")).unwrap();
    fs::write(shop.0.path().join("out/sequences.txt"), "ada a").unwrap();
    assert!(shop.prepare(&[]).unwrap_err().contains("not of this program"));
}

#[test]
fn bad_rows_are_left_out_where_that_is_asked_for() {
    let shop = Shop::new("user,item,time\nada,a,soon\nada,b,7\nada,c\n", ITEMS_CSV);
    assert_eq!(shop.prepare(&["--skip-bad-rows"]).unwrap().sequences.interactions(), 1);
    assert_eq!(shop.count("bad_rows"), 2);
}

#[test]
fn remarks_say_what_to_look_at() {
    let orders = "user,item,time\nada,a,1\nada,b,1\nbo,x,2\n";
    let shop = Shop::new(orders, ITEMS_CSV);
    shop.prepare(&[]).unwrap();
    let args = shop.args(&[]);
    let options = ReadOptions::default();
    let mut source = Source::open(&args.interactions, &options).unwrap();
    let (log, _) = read_log(&mut source, &args.columns).unwrap();
    let (items, _) = read_items(&mut Source::open(&args.items, &options).unwrap(), &args.columns).unwrap();
    let dataset = Prepare::default().with_k_core(1, 1).run("shop", &log, items.clone()).unwrap();
    let counts = Counts::of(&log, &items, &dataset, &args);
    let remarks = counts.remarks(&args, source.has("time"), &[]);
    for part in
        ["33 % of the interactions have the time", "33 % of the items have neither", "1 rows of", "codebook_sizes"]
    {
        assert!(remarks.iter().any(|remark| remark.contains(part)), "{part}: {remarks:#?}");
    }
    assert!(counts.remarks(&args, false, &["when"])[0].contains("`--time` if one of these does: when."));
}
