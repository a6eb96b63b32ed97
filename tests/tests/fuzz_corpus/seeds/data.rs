//! A few lines of each form of data.

use crate::readers::data::READERS;

use super::Seeds;

const WRITTEN: &[(&str, &str, &str)] = &[
    (
        "neutral",
        "{\"item_id\": 1, \"title\": \"Soap &amp; Brush\", \"brand\": null, \"price\": 3.5, \"categories\": [[\"A\", \"B\"]]}\n\
         {\"item_id\": \"x\", \"asin\": \"B0\", \"description\": \"text\"}\n",
        "ada 1 x\nbob x\n",
    ),
    (
        "amazon reviews",
        "{\"reviewerID\": \"A1\", \"asin\": \"B0\", \"unixReviewTime\": 1400000000, \"overall\": 5.0}\n\
         {\"user_id\": \"A2\", \"parent_asin\": \"B1\", \"timestamp\": 1588687728923, \"rating\": 4.0}\n",
        "",
    ),
    (
        "amazon reviews",
        "{'reviewerID': u'A1', 'asin': 'B0', 'unixReviewTime': 14, 'overall': 5.0, 'x': [True, None]}\n",
        "",
    ),
    (
        "amazon items",
        "{'asin': 'B0', 'title': \"It's\", 'price': 3.5, 'brand': '', 'categories': [['A', 'B'], ['C \\xe9\\u00e9']]}\n\
         {\"parent_asin\": \"B1\", \"store\": \"S\", \"price\": \"$1,3.50\", \
         \"main_category\": \"M\", \"description\": [\"a\", \"b\"]}\n",
        "",
    ),
    (
        "movielens 100k",
        "196\t242\t3\t881250949\n",
        "242|Kolya (1996)|24-Jan-1997||u|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n",
    ),
    ("movielens 1m", "1::1193::5::978300760\n", "1193::One Flew (1975)::Drama|Comedy\n"),
    (
        "movielens csv",
        "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
        "movieId,title,genres\n31,\"Dangerous, \"\"Minds\"\" (1995)\",Drama|Action\n",
    ),
    (
        "recbole",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nada\tb\t4\t978300760.5\n",
        "item_id:token\ttitle:token_seq\tprice:float\tcategories:token_seq\n\
         b\t\"12\"\" Brush\"\t3.5\t'Clothing, Shoes', 'Baby'\n",
    ),
    (
        "csv",
        "user,item,time,rating\na,b,1,2.5\n\"a \"\"x\"\"\",c,2,\n",
        "id,title,price,categories,colour,text,brand\nb,\"T\n2\",1.5,A,red,x,y\n",
    ),
    (
        "tsv",
        "user\titem\ttime\trating\na\tb\t1\t2.5\n",
        "id\ttitle\tprice\tcategories\tcolour\ttext\tbrand\nb\tT\t1\tA\tred\tx\ty\n",
    ),
    (
        "json lines",
        "{\"user\": \"a\", \"item\": 3, \"time\": 5, \"rating\": 1.5}\n",
        "{\"id\": \"b\", \"title\": \"T\", \"price\": 1, \"categories\": [[\"A\"]], \"colour\": 3, \"text\": \"x\"}\n",
    ),
];

pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (kind, first, second) in WRITTEN {
        let reader = READERS.iter().position(|(name, ..)| name == kind).expect("a reader of this name") as u8;
        for options in [0, 1] {
            let bytes = [&[reader, options], first.as_bytes(), &[0], second.as_bytes()].concat();
            seeds.push((format!("{:02}-{options}", seeds.len()), bytes));
        }
    }
    seeds
}
